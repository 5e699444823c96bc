//! What waits, and in how many pieces.

use super::*;

#[test]
fn what_a_user_says_waits_in_few_pieces_and_nothing_overtakes_it() {
    let mut outbox = Outbox::default();
    let said: Vec<String> = (0..2000).map(|number| format!("{{\"number\":{number}}}")).collect();
    let (before, after) = said.split_at(1000);
    let long = "x".repeat(2 * JOINED);
    let users = |lines: &[String]| {
        lines.iter().map(|line| Pending::user(line.clone().into_bytes())).collect::<Vec<_>>()
    };
    let own = Pending::plain("own".to_owned());
    for pending in users(before)
        .into_iter()
        .chain([own])
        .chain(users(after))
        .chain([Pending::user(long.clone().into_bytes())])
    {
        outbox.push(pending);
    }

    let pieces: Vec<&[u8]> = outbox.waiting.iter().map(Pending::rest).collect();
    let text = pieces.concat();
    let expected = [before, &["own".to_owned()], after, &[long]].concat().join("\n") + "\n";
    assert!(text == expected.as_bytes(), "the order has changed");
    assert!(pieces.iter().all(|piece| piece.len() <= JOINED || piece.len() == 2 * JOINED + 1));
    assert!(pieces.contains(&&b"own\n"[..]), "it is not by itself");
    let joined = |lines: &[String]| lines.iter().map(|line| line.len() + 1).sum::<usize>().div_ceil(JOINED);
    assert_eq!(pieces.len(), joined(before) + 1 + joined(after) + 1);
    assert_eq!(outbox.unread, 4);
    assert_eq!(outbox.metered(), text.len());
}

#[test]
fn who_reads_no_answers_does_not_keep_our_descriptors() {
    let null = || Arc::new(OwnedFd::from(std::fs::File::open("/dev/null").unwrap()));
    let mut outbox = Outbox::default();
    // What a user sends is the user's to stop.
    for _ in 0..3 {
        outbox.push(Pending::user_handle("a socket".to_owned(), null()));
    }
    for _ in 0..MOST_DESCRIPTORS {
        assert_eq!(outbox.neglect(), None);
        outbox.push(Pending::handle("an answer".to_owned(), null(), None));
    }
    assert_eq!(outbox.neglect(), None);
    outbox.push(Pending::handle("one more".to_owned(), null(), None));
    assert!(outbox.neglect().is_some_and(|what| what.contains("1,024 descriptors")));
    // It reads after all.
    let all: usize = outbox.waiting.iter().map(Pending::len).sum();
    outbox.note_written(all);
    assert_eq!((outbox.neglect(), outbox.descriptors), (None, 0));
}

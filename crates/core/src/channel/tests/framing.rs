//! Lines come out as they went in, however the bytes arrive.

use proptest::prelude::*;

use super::*;

fn take_all(lines: &mut Lines, into: &mut Vec<Vec<u8>>) {
    while let Some(line) = lines.next_line().unwrap() {
        into.push(line.to_vec());
    }
}

#[test]
fn a_line_beyond_the_limit_is_refused_whole_or_in_part() {
    let mut lines = Lines::new(4);
    lines.push(b"12345");
    assert!(lines.next_line().is_err());
    let mut lines = Lines::new(4);
    lines.push(b"12345\n");
    assert!(lines.next_line().is_err());
    let mut lines = Lines::new(4);
    lines.push(b"1234\n1234\n1234");
    assert_eq!(lines.next_line().unwrap(), Some(&b"1234"[..]));
    assert_eq!(lines.next_line().unwrap(), Some(&b"1234"[..]));
    assert_eq!(lines.next_line().unwrap(), None);
    lines.push(b"5");
    assert!(lines.next_line().is_err());
}

#[test]
fn a_million_small_lines_in_one_push_are_cut_in_no_time() {
    let mut lines = Lines::new(64);
    lines.push(&b"{}\n".repeat(1_000_000));
    let mut count = 0;
    while let Some(line) = lines.next_line().unwrap() {
        assert_eq!(line, b"{}");
        count += 1;
    }
    assert_eq!(count, 1_000_000);
}

#[test]
fn a_long_line_in_small_pieces_is_neither_searched_nor_moved_again_and_again() {
    let mut lines = Lines::new(1 << 30);
    // What was taken before must not cost anything either.
    lines.push(b"x\n");
    assert!(lines.next_line().unwrap().is_some());
    for _ in 0..200_000 {
        lines.push(&[b'a'; 160]);
        assert!(lines.next_line().unwrap().is_none());
    }
    lines.push(b"\n");
    assert_eq!(lines.next_line().unwrap().map(<[u8]>::len), Some(32_000_000));
    assert!(lines.is_empty());
}

#[test]
fn the_memory_of_a_long_line_goes_with_it() {
    let mut lines = Lines::new(1 << 30);
    for rest in ["", "rest"] {
        lines.push(&b"a".repeat(3_000_000));
        lines.push(format!("\nshort\n{rest}").as_bytes());
        assert_eq!(lines.next_line().unwrap().map(<[u8]>::len), Some(3_000_000));
        assert_eq!(lines.next_line().unwrap(), Some(&b"short"[..]));
        assert_eq!(lines.next_line().unwrap(), None);
        assert_eq!((lines.rest(), lines.memory()), (rest.as_bytes(), rest.len()));
        lines.push(b"\n");
        assert_eq!(lines.next_line().unwrap(), Some(rest.as_bytes()));
    }
}

#[test]
fn what_is_read_into_the_room_for_it_is_as_if_it_was_pushed() {
    let mut lines = Lines::new(1 << 30);
    let mut got = Vec::new();
    let whole: Vec<u8> =
        (0..3000).flat_map(|length| [&b"y".repeat(length % 700)[..], b"\n"].concat()).collect();
    // Less comes than there is room for, and lines begin in one and end in the other.
    for piece in whole.chunks(5000) {
        lines.room(8192)[..piece.len()].copy_from_slice(piece);
        lines.came(piece.len());
        take_all(&mut lines, &mut got);
    }
    assert_eq!(got.len(), 3000);
    assert!(got.iter().enumerate().all(|(index, line)| line.len() == index % 700));
    assert!(lines.memory() <= 16_384, "{} bytes for lines of 700", lines.memory());
}

#[test]
fn every_offset_may_be_the_end_of_a_read() {
    let whole = "{\"a\":\"ß\u{20ac}\"}\n\n\r\n[1]\n\"\u{1f980}\"\n".as_bytes();
    let mut expected = Vec::new();
    let mut lines = Lines::new(64);
    lines.push(whole);
    take_all(&mut lines, &mut expected);
    for cut in 0..=whole.len() {
        let (mut lines, mut got) = (Lines::new(64), Vec::new());
        lines.push(&whole[..cut]);
        take_all(&mut lines, &mut got);
        lines.push(&whole[cut..]);
        take_all(&mut lines, &mut got);
        assert_eq!(got, expected, "cut at {cut}");
        assert!(lines.is_empty());
    }
}

proptest! {
    #[test]
    fn lines_survive_any_cuts(
        texts in prop::collection::vec("[a-zß]{0,9}", 0..8),
        cuts in prop::collection::vec(1_usize..7, 1..6),
        is_taken_at_once in any::<bool>(),
    ) {
        let whole: String = texts.iter().flat_map(|text| [text, "\n"]).collect();
        let (mut lines, mut got) = (Lines::new(64), Vec::new());
        let mut rest = whole.as_bytes();
        for cut in cuts.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (piece, after) = rest.split_at(rest.len().min(*cut));
            rest = after;
            lines.push(piece);
            if is_taken_at_once {
                take_all(&mut lines, &mut got);
            } else if let Some(line) = lines.next_line().unwrap() {
                got.push(line.to_vec());
            }
        }
        take_all(&mut lines, &mut got);
        let got: Vec<String> = got.into_iter().map(|line| String::from_utf8(line).unwrap()).collect();
        prop_assert_eq!(got, texts);
        prop_assert!(lines.is_empty());
    }
}

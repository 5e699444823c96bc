//! What holds of the decoder, whatever it is given.

use allcores_core::channel::{
    BadLine, FromPrimary, Incoming, Lines, Message, Query, Speaker, Texts, TooLong,
};
use allcores_core::handoff::head::{self, Found};
use allcores_core::notify;
use allcores_core::policy::StickyBy;
use serde::de::IgnoredAny;

/// Cuts bytes into lines in two ways. The first two bytes say how they arrive and how long a line may be. True if none
/// was too long.
///
/// # Panics
///
/// Unless both ways give what splitting them at line ends gives, no more is kept than came, and exactly the lines that
/// are too long are refused.
pub fn lines(data: &[u8]) -> bool {
    let [piece, limit, data @ ..] = data else { return false };
    let (piece, limit) = (usize::from(*piece) + 1, usize::from(*limit) * 16 + 1);
    // A rest that is not ended is as good as a line where its length is concerned.
    let mut expected: Vec<Result<&[u8], ()>> = Vec::new();
    let mut rest = 0;
    let ended = data.split(|byte| *byte == b'\n').count() - 1;
    for (nth, line) in data.split(|byte| *byte == b'\n').enumerate() {
        if line.len() > limit {
            expected.push(Err(()));
            break;
        }
        if nth == ended {
            rest = line.len();
        } else {
            expected.push(Ok(line));
        }
    }
    for pieces in [piece, data.len().max(1)] {
        let mut cutter = Lines::new(limit);
        let mut found = Vec::new();
        let mut is_refused = false;
        for chunk in data.chunks(pieces) {
            if is_refused {
                break;
            }
            cutter.push(chunk);
            assert!(cutter.len() <= limit + pieces, "{} bytes are kept", cutter.len());
            is_refused = take(&mut cutter, &mut found);
        }
        let found: Vec<Result<&[u8], ()>> =
            found.iter().map(|line| line.as_ref().map(Vec::as_slice).map_err(|_| ())).collect();
        assert_eq!(found, expected);
        assert!(is_refused || cutter.len() == rest, "{} bytes of {rest} are left", cutter.len());
    }
    expected.iter().all(Result::is_ok)
}

/// Takes out what there is; true if it came to a line that is too long.
fn take(cutter: &mut Lines, found: &mut Vec<Result<Vec<u8>, TooLong>>) -> bool {
    loop {
        match cutter.next_line() {
            Ok(Some(line)) => found.push(Ok(line.to_vec())),
            Ok(None) => return false,
            Err(error) => {
                found.push(Err(error));
                return true;
            }
        }
    }
}

/// Reads one line as a primary and as a worker do, and has a primary answer it. True if it is a message to either.
///
/// # Panics
///
/// If the two do not agree whether it is a message of the protocol's, keep more than came, if a primary passes on to users what
/// is not JSON, or if the answer is not one line that a worker understands.
pub fn messages(data: &[u8]) -> bool {
    // What is cut into lines has no line end inside.
    let line: Vec<u8> = data.iter().map(|byte| if *byte == b'\n' { b' ' } else { *byte }).collect();
    let is_json = serde_json::from_slice::<IgnoredAny>(&line).is_ok() && std::str::from_utf8(&line).is_ok();
    let incoming: Result<Incoming, BadLine> = Message::parse(&line, &mut Texts::default());
    let from_primary: Result<FromPrimary, BadLine> = Message::parse(&line, &mut Texts::default());
    if !is_json {
        assert!(incoming.is_err(), "no JSON, and a message: {incoming:?}");
        let is_left = match &from_primary {
            Ok(FromPrimary::User(text)) => line.trim_ascii() == text.trim_ascii().as_bytes(),
            Ok(_) => false,
            Err(_) => true,
        };
        assert!(is_left, "no JSON, and a message: {from_primary:?}");
        return false;
    }
    if let Ok(message) = &incoming {
        assert!(size_of_incoming(message) <= line.len(), "{message:?}");
        answer(message);
    }
    if let Ok(message) = &from_primary {
        assert!(size_from_primary(message) <= line.len(), "{message:?}");
    }
    if let (Ok(incoming), Ok(from_primary)) = (&incoming, &from_primary) {
        assert_eq!(incoming.carriage(), from_primary.carriage());
    }
    incoming.is_ok() || from_primary.is_ok()
}

/// How many bytes a message keeps of its line.
fn size_of_incoming(message: &Incoming) -> usize {
    match message {
        Incoming::Query(query) => {
            let texts = [&query.address, &query.data, &query.policy];
            texts.into_iter().flatten().map(String::len).sum()
        }
        Incoming::Listening { address, .. } => address.as_ref().map_or(0, String::len),
        Incoming::Close { key } => key.len(),
        Incoming::User(text) => json(text),
        Incoming::Handle { message, key, .. } => {
            size_of_incoming(message) + key.as_ref().map_or(0, String::len)
        }
        _ => 0,
    }
}

fn size_from_primary(message: &FromPrimary) -> usize {
    match message {
        FromPrimary::Answer { key, data, .. } => key.len() + data.as_ref().map_or(0, String::len),
        FromPrimary::Connection { key, .. } => key.len(),
        FromPrimary::User(text) => json(text),
        FromPrimary::Handle { message, key, .. } => {
            size_from_primary(message) + key.as_ref().map_or(0, String::len)
        }
        _ => 0,
    }
}

/// The length of a text that must be JSON.
fn json(text: &str) -> usize {
    assert!(serde_json::from_str::<IgnoredAny>(text).is_ok(), "a user is given what is no JSON: {text:?}");
    text.len()
}

/// Answers a wish to listen in every way there is.
fn answer(message: &Incoming) {
    let query = match message {
        // No number of JavaScript's is larger.
        Incoming::Query(query) if i64::try_from(query.seq).is_ok() => query,
        Incoming::Handle { message, .. } => return answer(message),
        _ => return,
    };
    let mut speaker = Speaker::default();
    let sockname = Some(([127, 0, 0, 1], 80).into());
    understood(query, &speaker.give_listener(query, "1:0"), 0);
    understood(query, &speaker.listen_by_handoff(query, "1:0", sockname), 0);
    understood(query, &speaker.refuse_listener(query, "1:0", 98), -98);
}

fn understood(query: &Query, line: &str, expected: i32) {
    assert!(!line.contains('\n'), "{line:?}");
    let message = FromPrimary::parse(line.as_bytes(), &mut Texts::default())
        .unwrap_or_else(|error| panic!("{error}: {line:?}"));
    let message = match message {
        FromPrimary::Handle { message, .. } => *message,
        plain => plain,
    };
    let FromPrimary::Answer { ack, errno, data, .. } = message else { panic!("{message:?} for {query:?}") };
    assert!(ack == query.seq && errno == expected && data == query.data, "{line:?} for {query:?}");
}

/// Looks for a client in the head of a request, as it comes. The first byte says in which pieces, the second by what clients
/// are told apart. True if one is found.
///
/// # Panics
///
/// If two clients are found in what is one head, or one in what was said to have none.
pub fn heads(data: &[u8]) -> bool {
    let [piece, by, data @ ..] = data else { return false };
    let by = match by % 3 {
        0 => StickyBy::Cookie("a".into()),
        1 => StickyBy::Header("a".into()),
        _ => StickyBy::Query("a".into()),
    };
    // At most so many looks, however long it is.
    let piece = (usize::from(*piece) + 1).max(data.len() / 8);
    let ends = (piece..data.len()).step_by(piece).chain([data.len()]);
    let mut decided = None;
    for end in ends {
        match (head::find(&data[..end], &by), decided) {
            (found @ Found::Client(_), Some(before)) => assert_eq!(found, before, "{end} bytes"),
            // Who is found in the target is found before the rest turns out to be no request.
            (Found::Incomplete, None) | (_, Some(_)) => {}
            (found, None) => decided = Some(found),
        }
    }
    matches!(decided, Some(Found::Client(_)))
}

/// Reads a datagram of sd_notify(3). True if it says something.
///
/// # Panics
///
/// If a status has control characters, or is longer than it may be.
pub fn words(data: &[u8]) -> bool {
    let said = notify::parse(data);
    if let Some(status) = &said.status {
        assert!(status.chars().count() <= 200 && !status.chars().any(char::is_control), "{status:?}");
    }
    assert!(said.heartbeat_interval.is_none_or(|interval| !interval.is_zero()), "{said:?}");
    said != notify::Notification::default()
}

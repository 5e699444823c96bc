//! Asking more than once what this process is.

use std::os::unix::net::UnixStream;

use allcores_testing::own_process::is_moved_to_own_process_with;

use super::support::inherited;
use crate::{Error, ErrorKind, Worker};

/// The descriptor is taken by then: it would find itself to be no worker.
#[test]
fn who_could_not_become_a_worker_hears_the_same_the_next_time() {
    let (theirs, _ours) = UnixStream::pair().unwrap();
    let is_moved = is_moved_to_own_process_with(
        "worker::tests::again::who_could_not_become_a_worker_hears_the_same_the_next_time",
        &[
            ("NODE_CHANNEL_FD", &inherited(theirs)),
            ("NODE_UNIQUE_ID", "1"),
            ("NODE_CHANNEL_SERIALIZATION_MODE", "advanced"),
        ],
    );
    if is_moved {
        return;
    }
    let [first, second] = [(); 2].map(|()| Worker::from_env().unwrap_err());
    assert_eq!((first.kind(), second.kind()), (ErrorKind::Unsupported, ErrorKind::Unsupported));
    let whole = |error: Error| (error.to_string(), std::io::Error::from(error).kind());
    assert_eq!(whole(first), whole(second));
}

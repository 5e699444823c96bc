//! What a worker's wish can and can't make the primary do.

use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;

use super::*;

/// A wish for a socket that everybody may use.
fn for_all() -> Query {
    let line = r#"{"cmd":"NODE_CLUSTER","act":"queryServer","seq":1,"index":0,"address":"x","port":-1,"addressType":-1,
        "readableAll":true,"writableAll":true}"#;
    match allcores_core::channel::Message::parse(
        line.replace('\n', "").as_bytes(),
        &mut allcores_core::channel::Texts::default(),
    )
    .unwrap()
    {
        Incoming::Query(query) => *query,
        other => panic!("{other:?}"),
    }
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().mode() & 0o777
}

#[test]
fn a_socket_can_be_made_everybodys_and_nothing_else_can() {
    let folder = tempfile::tempdir().unwrap();
    let (socket, secret, link) =
        (folder.path().join("socket"), folder.path().join("secret"), folder.path().join("link"));
    let _listener = UnixListener::bind(&socket).unwrap();
    std::fs::set_permissions(&socket, std::fs::Permissions::from_mode(0o700)).unwrap();
    permit(&socket, &for_all());
    assert_eq!(mode(&socket), 0o766);

    std::fs::write(&secret, "").unwrap();
    std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o600)).unwrap();
    symlink(&secret, &link).unwrap();
    permit(&link, &for_all());
    permit(&secret, &for_all());
    assert_eq!(mode(&secret), 0o600);
}

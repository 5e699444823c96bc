//! journald's side of its native protocol (<https://systemd.io/JOURNAL_NATIVE_PROTOCOL/>): what a client has sent, read back.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{IoSliceMut, Read as _, Seek as _};
use std::mem::MaybeUninit;
use std::os::unix::net::UnixDatagram;

use anyhow::{Context, bail, ensure};
use rustix::fs::{SealFlags, fcntl_get_seals};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

/// The fields of an entry.
pub type Entry = BTreeMap<String, Vec<u8>>;

/// Longer than any datagram here.
const LONGEST: usize = 1024 * 1024;

/// Waits for an entry.
///
/// # Errors
///
/// If it is not as the protocol has it.
pub fn receive(socket: &UnixDatagram) -> anyhow::Result<Entry> {
    Ok(receive_either(socket)?.0)
}

/// Waits for an entry, and tells whether it came as a file.
///
/// # Errors
///
/// If it is not as the protocol has it.
pub fn receive_either(socket: &UnixDatagram) -> anyhow::Result<(Entry, bool)> {
    let mut bytes = vec![0; LONGEST];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut buffers = [IoSliceMut::new(&mut bytes)];
    let length = recvmsg(socket, &mut buffers, &mut control, RecvFlags::CMSG_CLOEXEC)?.bytes;
    let file = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    });
    let Some(file) = file else { return Ok((decode(&bytes[..length])?, false)) };
    ensure!(length == 0, "an entry that comes as a file has nothing in its datagram");
    let sealed = SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE;
    ensure!(fcntl_get_seals(&file)?.contains(sealed), "the file can still be changed");
    let (mut file, mut text) = (File::from(file), Vec::new());
    file.rewind()?;
    file.read_to_end(&mut text)?;
    Ok((decode(&text)?, true))
}

/// Reads an entry: `NAME=text` up to the line's end, or `NAME`, a line's end, a length of 64 bits, so many bytes, a line's end.
fn decode(mut rest: &[u8]) -> anyhow::Result<Entry> {
    let mut entry = Entry::new();
    while !rest.is_empty() {
        let end = rest.iter().position(|byte| *byte == b'\n').context("a field has no end")?;
        let (line, behind) = (&rest[..end], &rest[end + 1..]);
        let (name, value) = if let Some(equals) = line.iter().position(|byte| *byte == b'=') {
            rest = behind;
            (&line[..equals], &line[equals + 1..])
        } else {
            let (length, behind) = behind.split_first_chunk().context("a field has no length")?;
            let length = usize::try_from(u64::from_le_bytes(*length))?;
            let (value, behind) = behind.split_at_checked(length).context("a field is cut")?;
            rest = behind.strip_prefix(b"\n").context("a field goes on behind its end")?;
            (line, value)
        };
        let name = std::str::from_utf8(name)?;
        let is_name = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_';
        ensure!(!name.is_empty() && name.bytes().all(is_name) && !name.starts_with('_'), "no name: {name:?}");
        if entry.insert(name.to_owned(), value.to_owned()).is_some() {
            bail!("{name} comes twice");
        }
    }
    Ok(entry)
}

//! Ending the connections of a worker that was asked to stop and has not, shortly before it is killed.
//!
//! There are servers that do not stop as long as a client has the next request at once, and whoever is killed may be in
//! the middle of an answer. So the side of its connections by which it reads is shut down: a server that finds nothing more
//! to read, when it has written its answer, takes it that the client has done, and closes. The client sees a kept connection
//! close before it has a byte of the next answer, which it may ask for again.

use allcores_core::worker::WorkerId;
use rustix::net::Shutdown;

use super::Engine;
use crate::adopt::take_copy;
use crate::proc;

impl Engine {
    /// Lets a worker see the end of what its clients send. Where a container forbids to look at its descriptors, it is not
    /// done.
    pub(super) fn hang_up(&mut self, id: WorkerId) {
        let connections = self.connections();
        for pid in self.members(id) {
            for (number, _) in proc::sockets_of(pid).filter(|(_, inode)| connections.contains(inode)) {
                if let Ok(connection) = take_copy(pid, number) {
                    let _ = rustix::net::shutdown(connection, Shutdown::Read);
                }
            }
        }
    }
}

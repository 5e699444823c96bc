//! A worker beside a scripted primary: what is said, in which order, and what becomes of connections.

mod again;
mod alone;
mod hostile;
mod leave;
mod listen;
mod messages;
pub(super) mod support;

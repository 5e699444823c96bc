//! What goes wrong, and what people then see: wrong commands, hostile workers, restricted machines, ends of all kinds.
//!
//! Every test starts real processes, and looks at the end for what they left behind.

mod bad_input;
mod control;
mod doctor;
mod hostile;
mod ladder;
mod life;
mod misbehaving;
mod restricted;
mod strangers;
mod support;

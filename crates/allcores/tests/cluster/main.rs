//! The cluster API, with real node programs as workers.

mod life;
mod signals;
mod support;
mod upkeep;

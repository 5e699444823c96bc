//! The cluster API, with real node programs as workers.

mod life;
mod support;
mod upkeep;

//! Config files: several apps, their options in TOML, with defaults and environments.
//!
//! What may stand in one is not listed here: `catalogue` reads it off the command line's definition, and every value goes
//! through the reader of its option. `file` reads a file and finds every mistake in it, `layer` puts together what its parts and
//! the command line say, `resolve` makes an app's options of that. What they mean on this machine, `settings` knows.

mod catalogue;
mod complaint;
mod file;
mod layer;
mod nearest;
#[cfg(test)]
mod reference;
mod resolve;
mod saved;
mod schema;

pub(crate) use complaint::Places;
pub(crate) use file::File;
pub(crate) use layer::{Layer, Shown};
pub(crate) use nearest::nearest;
pub(crate) use resolve::{App, Typed, no_environments};
pub(crate) use saved::{LayerSaved, TypedSaved};
pub(crate) use schema::schema;

/// The name that a config file has unless another is given.
pub(crate) const DEFAULT_NAME: &str = "allcores.toml";

#[cfg(test)]
pub(crate) mod tests;

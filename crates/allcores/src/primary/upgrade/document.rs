//! What a primary leaves to its next program, as one document.
//!
//! May come from anywhere: whatever it says, reading it is an error at worst.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;

use serde::{Deserialize, Serialize};

use super::Unreadable;
use crate::carry::{BytesSaved, FdSaved};
use crate::primary::engine::EngineSaved;

/// The format that this program writes. It reads all from the first on; one that knows less is told so by the number, so
/// it grows whenever something is written that an older program must not pass over.
pub(super) const FORMAT: u32 = 1;

/// The longest document that is read, in bytes.
const LONGEST: u64 = 1 << 30;

#[derive(Debug, Serialize, Deserialize)]
pub(in crate::primary) struct Document {
    format: u32,
    /// The version of the program that wrote it.
    pub(in crate::primary) version: String,
    /// How many programs there were before the one that reads it.
    pub(in crate::primary) upgrades: u32,
    /// The file that the primary was started from.
    pub(in crate::primary) executable: BytesSaved,
    /// What the program around the primary needs.
    pub(in crate::primary) program: String,
    /// All descriptors that are named anywhere in it.
    pub(in crate::primary) descriptors: Vec<FdSaved>,
    pub(in crate::primary) engine: EngineSaved,
}

/// What each format has in common.
#[derive(Deserialize)]
struct Head {
    format: u32,
    version: String,
}

impl Document {
    pub(in crate::primary) fn new(
        upgrades: u32,
        executable: BytesSaved,
        program: String,
        descriptors: Vec<FdSaved>,
        engine: EngineSaved,
    ) -> Self {
        let version = env!("CARGO_PKG_VERSION").to_owned();
        Self { format: FORMAT, version, upgrades, executable, program, descriptors, engine }
    }

    pub(in crate::primary) fn write(&self) -> Result<Vec<u8>, String> {
        serde_json::to_vec(self).map_err(|error| format!("writing down what there is: {error}"))
    }

    pub(super) fn read_from(file: File) -> Result<Self, Unreadable> {
        let mut bytes = Vec::new();
        file.take(LONGEST)
            .read_to_end(&mut bytes)
            .map_err(|error| Unreadable(format!("reading what was left: {error}")))?;
        Self::read(&bytes)
    }

    /// Reads one.
    ///
    /// # Errors
    ///
    /// If it is none that this program can go on with.
    pub(in crate::primary) fn read(bytes: &[u8]) -> Result<Self, Unreadable> {
        let head: Head = serde_json::from_slice(bytes)
            .map_err(|error| Unreadable(format!("it is no state of a primary: {error}")))?;
        if !(1..=FORMAT).contains(&head.format) {
            return Err(Unreadable(format!(
                "allcores {} wrote it in format {}, and allcores {} reads up to format {FORMAT}",
                head.version,
                head.format,
                env!("CARGO_PKG_VERSION")
            )));
        }
        let document: Self = serde_json::from_slice(bytes).map_err(|error| {
            Unreadable(format!("reading the state of allcores {}: {error}", head.version))
        })?;
        document.check().map_err(Unreadable)?;
        Ok(document)
    }

    fn check(&self) -> Result<(), String> {
        let descriptors: BTreeSet<FdSaved> = self.descriptors.iter().copied().collect();
        if descriptors.len() != self.descriptors.len() {
            return Err("it leaves a descriptor twice".into());
        }
        if descriptors.first().is_some_and(|first| first.is_standard()) {
            return Err("it leaves a standard stream".into());
        }
        self.engine.check()
    }
}

//! What the state folder says of an app that begins: how it was started this time. Written by who has claimed its name, so
//! that what stands there is always how the app was started that runs, or has last.

use crate::failure::Failure;
use crate::screen;
use crate::settings::AppName;
use crate::state_folder::{Record, StateFolder};

/// How an app was started, which stays unless nothing comes of it: then it is as if nobody had tried.
pub(super) struct Entry {
    state: StateFolder,
    name: AppName,
    before: Option<Record>,
    stays: bool,
}

impl Entry {
    /// Writes it. The name is claimed, and is to stay so for as long as there is this.
    pub(super) fn write(state: StateFolder, record: &Record) -> Result<Self, Failure> {
        let name = record.name().clone();
        let before = state.change(|change| {
            let before = state.record(&name)?;
            change.keep(record)?;
            Ok(before)
        })?;
        Ok(Self { state, name, before, stays: false })
    }

    /// The app has served, or was stopped as somebody wished.
    pub(super) fn stays(mut self) {
        self.stays = true;
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        if self.stays {
            return;
        }
        let put_back = self.state.change(|change| match &self.before {
            Some(before) => change.keep(before),
            None => change.forget(&self.name).map(drop),
        });
        if let Err(failure) = put_back {
            screen::tell(&format!("how {} was started before is not known any more: {failure}", self.name));
        }
    }
}

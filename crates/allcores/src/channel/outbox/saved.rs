//! What waits to be sent as data, with the descriptors that are to ride on it.

use std::io;

use serde::{Deserialize, Serialize};

use super::{Cargo, Outbox, Outstanding, Pending};
use crate::carry::{BytesSaved, FdSaved, Inherited, Manifest};

/// What waits to be sent, as data.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(in crate::channel) struct OutboxSaved {
    #[serde(default)]
    begun: Option<PendingSaved>,
    acknowledgements: Vec<PendingSaved>,
    waiting: Vec<PendingSaved>,
    outstanding: Vec<OutstandingSaved>,
    plain: usize,
    is_fenced: bool,
    is_held: bool,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct PendingSaved {
    bytes: BytesSaved,
    sent: usize,
    #[serde(default)]
    cargo: Option<CargoSaved>,
    is_metered: bool,
    is_own: bool,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum CargoSaved {
    /// Without a descriptor it has gone already.
    Handle {
        descriptor: Option<FdSaved>,
        number: Option<u64>,
    },
    UserHandle {
        descriptor: FdSaved,
        retransmissions: u8,
    },
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum OutstandingSaved {
    Handle(Option<u64>),
    User(PendingSaved),
}

impl Outbox {
    pub(in crate::channel) fn save(&self, manifest: &mut Manifest) -> OutboxSaved {
        let mut save = |pending: &Pending| pending.save(manifest);
        OutboxSaved {
            begun: self.begun.as_ref().map(&mut save),
            acknowledgements: self.acknowledgements.iter().map(&mut save).collect(),
            waiting: self.waiting.iter().map(&mut save).collect(),
            outstanding: self
                .outstanding
                .iter()
                .map(|outstanding| match outstanding {
                    Outstanding::Handle(number) => OutstandingSaved::Handle(*number),
                    Outstanding::User(pending) => OutstandingSaved::User(save(pending)),
                })
                .collect(),
            plain: self.plain,
            is_fenced: self.is_fenced,
            is_held: self.is_held,
        }
    }

    pub(in crate::channel) fn restore(saved: OutboxSaved, inherited: &mut Inherited) -> io::Result<Self> {
        let mut restore = |pending: PendingSaved| Pending::restore(pending, inherited);
        let mut outbox = Self {
            begun: saved.begun.map(&mut restore).transpose()?,
            acknowledgements: saved
                .acknowledgements
                .into_iter()
                .map(&mut restore)
                .collect::<io::Result<_>>()?,
            waiting: saved.waiting.into_iter().map(&mut restore).collect::<io::Result<_>>()?,
            outstanding: saved
                .outstanding
                .into_iter()
                .map(|outstanding| {
                    Ok(match outstanding {
                        OutstandingSaved::Handle(number) => Outstanding::Handle(number),
                        OutstandingSaved::User(pending) => Outstanding::User(restore(pending)?),
                    })
                })
                .collect::<io::Result<_>>()?,
            plain: saved.plain,
            is_fenced: saved.is_fenced,
            is_held: saved.is_held,
            // What rests has done so long enough.
            ..Self::default()
        };
        let own = outbox.begun.iter().chain(&outbox.waiting).filter(|pending| pending.is_own);
        outbox.unread = own.map(|pending| pending.rest().len()).sum();
        outbox.descriptors = outbox.waiting.iter().filter(|pending| pending.has_own_descriptor()).count();
        Ok(outbox)
    }

    /// How much of what waits is to be noted when it is written.
    pub(in crate::channel) fn metered(&self) -> usize {
        let all = self.begun.iter().chain(&self.waiting).filter(|pending| pending.is_metered);
        all.map(Pending::weight).sum()
    }
}

impl Pending {
    fn save(&self, manifest: &mut Manifest) -> PendingSaved {
        PendingSaved {
            bytes: self.bytes.as_slice().into(),
            sent: self.sent,
            cargo: match &self.cargo {
                Cargo::None => None,
                Cargo::Handle { descriptor, number } => Some(CargoSaved::Handle {
                    descriptor: descriptor.as_ref().map(|descriptor| manifest.note(descriptor.as_ref())),
                    number: *number,
                }),
                Cargo::UserHandle { descriptor, retransmissions } => Some(CargoSaved::UserHandle {
                    descriptor: manifest.note(descriptor.as_ref()),
                    retransmissions: *retransmissions,
                }),
            },
            is_metered: self.is_metered,
            is_own: self.is_own,
        }
    }

    fn restore(saved: PendingSaved, inherited: &mut Inherited) -> io::Result<Self> {
        let bytes = Vec::from(saved.bytes);
        if saved.sent > bytes.len() {
            return Err(io::Error::other("more of a message was sent than there is of it"));
        }
        Ok(Self {
            bytes,
            sent: saved.sent,
            cargo: match saved.cargo {
                None => Cargo::None,
                Some(CargoSaved::Handle { descriptor, number }) => Cargo::Handle {
                    descriptor: descriptor.map(|number| inherited.share(number)).transpose()?,
                    number,
                },
                Some(CargoSaved::UserHandle { descriptor, retransmissions }) => {
                    Cargo::UserHandle { descriptor: inherited.share(descriptor)?, retransmissions }
                }
            },
            is_metered: saved.is_metered,
            is_own: saved.is_own,
        })
    }
}

//! Which addresses this worker listens on, as it asked for them.
//!
//! Decides what Node decides in the worker: that no address is listened on twice, and which of several listeners on
//! "any port" is which.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use allcores_core::channel::AddressKind;

/// An address as it is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    kind: AddressKind,
    address: Option<String>,
    port: i64,
    index: u64,
}

/// All places of one worker.
#[derive(Debug, Default)]
pub(super) struct Places(Arc<Mutex<Vec<Place>>>);

/// A place that is this listener's, until it is dropped.
#[derive(Debug)]
pub(super) struct Reservation {
    place: Place,
    places: Arc<Mutex<Vec<Place>>>,
}

/// It is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Taken;

impl Places {
    /// Reserves an address; port 0 is another place each time.
    pub(super) fn reserve(
        &self,
        kind: AddressKind,
        address: Option<&str>,
        port: i64,
    ) -> Result<Reservation, Taken> {
        let mut places = lock(&self.0);
        let mut place = Place { kind, address: address.map(str::to_owned), port, index: 0 };
        while places.contains(&place) {
            if port != 0 {
                return Err(Taken);
            }
            place.index += 1;
        }
        places.push(place.clone());
        Ok(Reservation { place, places: Arc::clone(&self.0) })
    }
}

impl Reservation {
    /// Which of the listeners on any port this is, from 0.
    pub(super) fn index(&self) -> u64 {
        self.place.index
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let mut places = lock(&self.places);
        if let Some(at) = places.iter().position(|place| *place == self.place) {
            places.swap_remove(at);
        }
    }
}

fn lock(places: &Mutex<Vec<Place>>) -> MutexGuard<'_, Vec<Place>> {
    places.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_one_listeners_until_it_is_closed_and_each_listen_on_any_port_is_another() {
        let places = Places::default();
        let reserve = |port| places.reserve(AddressKind::Tcp4, Some("127.0.0.1"), port);
        let first = reserve(80).unwrap();
        assert_eq!(reserve(80).unwrap_err(), Taken);
        drop(first);
        assert_eq!(reserve(80).unwrap().index(), 0);
        let (zeroth, next) = (reserve(0).unwrap(), reserve(0).unwrap());
        assert_eq!((zeroth.index(), next.index()), (0, 1));
        drop(zeroth);
        assert_eq!(reserve(0).unwrap().index(), 0);
    }
}

//! Pages of the repository that are made from what the code, or a file beside them, says.

use crate::runtimes::workspace;

/// The variable that has the pages written instead of compared.
const WRITE: &str = "ALLCORES_WRITE_PAGES";

/// Compares a page of the repository with what it should be, or writes it, where `ALLCORES_WRITE_PAGES` is set.
///
/// # Panics
///
/// If it is something else, or can't be written.
#[track_caller]
pub fn current(page: &str, text: &str) {
    let path = workspace().join(page);
    if std::env::var_os(WRITE).is_some() {
        std::fs::write(&path, text).unwrap_or_else(|error| panic!("write {page}: {error}"));
    }
    let published = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        published == text,
        "{page} is not current: {WRITE}=1 cargo test --workspace --lib --bins current"
    );
}

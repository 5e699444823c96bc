//! The word that somebody may have meant.

/// How alike two words must be, from 0 to 1: what clap asks of its own suggestions.
const ALIKE: f64 = 0.7;

/// Finds the known word that is most like another, if any is.
pub(crate) fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.to_lowercase().replace('_', "-");
    let likeness = known.into_iter().map(|known| (strsim::jaro(&word, &known.to_lowercase()), known));
    let best = likeness.max_by(|(one, _), (other, _)| one.total_cmp(other))?;
    (best.0 > ALIKE).then_some(best.1)
}

/// The end of a sentence that says that a word is not known: what may have been meant, or all there is.
pub(super) fn suggestion<'a>(word: &str, known: impl IntoIterator<Item = &'a str> + Clone) -> String {
    if let Some(meant) = nearest(word, known.clone()) {
        return format!("; did you mean `{meant}`?");
    }
    let all: Vec<String> = known.into_iter().map(|known| format!("`{known}`")).collect();
    if all.is_empty() { String::new() } else { format!("; there are {}", all.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::{nearest, suggestion};

    #[test]
    fn a_slip_of_the_finger_is_understood_and_another_word_is_not() {
        let known = ["kill-timeout", "drain-timeout", "workers"];
        for word in ["kill-timout", "kill_timeout", "killTimeout", "KILL-TIMEOUT"] {
            assert_eq!(nearest(word, known), Some("kill-timeout"), "{word}");
        }
        assert_eq!(nearest("worker", known), Some("workers"));
        assert_eq!(nearest("zzz", known), None);
    }

    #[test]
    fn where_nothing_is_alike_everything_is_named() {
        assert_eq!(suggestion("zzz", ["web", "api"]), "; there are `web`, `api`");
        assert_eq!(suggestion("wed", ["web", "api"]), "; did you mean `web`?");
        assert_eq!(suggestion("web", []), "");
    }
}

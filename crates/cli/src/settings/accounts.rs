//! Finds users and groups in `/etc/passwd` and `/etc/group`.
//!
//! Deliberately does not ask NSS (LDAP, sssd): that takes libc's loader of shared objects, which a static binary
//! hasn't got. Numbers always work.

use std::fs;

use anyhow::{Context as _, anyhow};

use crate::config::Places;
use crate::failure::{Failure, Failures};

const PASSWD: &str = "/etc/passwd";
const GROUP: &str = "/etc/group";

/// A line of passwd(5), as far as it is of use here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct User {
    uid: u32,
    gid: u32,
}

/// Says which user and group `--uid` and `--gid` mean. A user brings its primary group along.
pub(super) fn resolve(
    user: Option<&str>,
    group: Option<&str>,
    places: &Places,
) -> Result<(Option<u32>, Option<u32>), Failure> {
    let mut wrong = Failures::default();
    let gid = wrong.keep(group.map(|group| find_group(group, places)).transpose()).flatten();
    let found = user.map(|user| find_user(user, group.is_some(), places)).transpose();
    let found = wrong.keep(found).flatten();
    wrong.none()?;
    Ok(match found {
        Some((uid, own)) => (Some(uid), gid.or(own)),
        None => (None, gid),
    })
}

/// A user, and its primary group where that is known.
fn find_user(wanted: &str, has_group: bool, places: &Places) -> Result<(u32, Option<u32>), Failure> {
    let number = wanted.parse::<u32>().ok();
    if let (Some(uid), true) = (number, has_group) {
        return Ok((uid, None));
    }
    match (user_in(&read(PASSWD)?, wanted), number) {
        (Some(found), _) => Ok((found.uid, Some(found.gid))),
        (None, Some(uid)) => {
            let why = anyhow!("no user {uid} in {PASSWD}, so its primary group isn't known");
            Err(places.refuse("uid", wanted, why).next("say which group: --gid"))
        }
        (None, None) => Err(unknown(places, "uid", "user", wanted, PASSWD)),
    }
}

/// Makes sure that there is a user whom an option of the command line names. A number may be anybody's.
///
/// # Errors
///
/// There is none of this name.
pub(crate) fn check_user(option: &str, wanted: &str) -> Result<(), Failure> {
    if wanted.parse::<u32>().is_ok() || user_in(&read(PASSWD)?, wanted).is_some() {
        return Ok(());
    }
    Err(unknown(&Places::default(), option, "user", wanted, PASSWD))
}

fn find_group(wanted: &str, places: &Places) -> Result<u32, Failure> {
    match wanted.parse() {
        Ok(gid) => Ok(gid),
        Err(_) => {
            group_in(&read(GROUP)?, wanted).ok_or_else(|| unknown(places, "gid", "group", wanted, GROUP))
        }
    }
}

fn read(path: &str) -> anyhow::Result<String> {
    let bytes = fs::read(path).with_context(|| format!("read {path}"))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn unknown(places: &Places, option: &str, kind: &str, wanted: &str, file: &str) -> Failure {
    places.refuse(option, wanted, anyhow!("no {kind} of that name in {file}")).next(format!(
        "check the spelling; a {kind} that comes from elsewhere (LDAP, sssd) must be given by number"
    ))
}

fn user_in(passwd: &str, wanted: &str) -> Option<User> {
    let number = wanted.parse::<u32>().ok();
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let uid = fields.nth(1)?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        let is_wanted = number.map_or(name == wanted, |number| number == uid);
        is_wanted.then_some(User { uid, gid })
    })
}

fn group_in(groups: &str, wanted: &str) -> Option<u32> {
    groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next()? == wanted).then(|| fields.nth(1)?.parse().ok()).flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::{User, group_in, user_in};
    use crate::config::Places;
    use crate::failure::Failure;

    fn resolve(user: Option<&str>, group: Option<&str>) -> Result<(Option<u32>, Option<u32>), Failure> {
        super::resolve(user, group, &Places::default())
    }

    const USERS: &str = "root:x:0:0:root:/root:/bin/sh\n#comment\nwww-data:x:33:34:web:/var/www:/bin/false\n";
    const GROUPS: &str = "root:x:0:\nwww-data:x:34:alice,bob\nbroken\n";

    #[test]
    fn a_user_is_found_by_name_and_by_number() {
        let www = Some(User { uid: 33, gid: 34 });
        assert_eq!(user_in(USERS, "www-data"), www);
        assert_eq!(user_in(USERS, "33"), www);
        assert_eq!(user_in(USERS, "www"), None);
    }

    #[test]
    fn a_group_is_found_by_name() {
        assert_eq!(group_in(GROUPS, "www-data"), Some(34));
        assert_eq!(group_in(GROUPS, "broken"), None);
        assert_eq!(group_in(GROUPS, "alice"), None);
    }

    #[test]
    fn a_user_brings_its_primary_group() {
        assert_eq!(resolve(Some("root"), None).unwrap(), (Some(0), Some(0)));
        assert_eq!(resolve(Some("0"), Some("7")).unwrap(), (Some(0), Some(7)));
        assert_eq!(resolve(None, Some("root")).unwrap(), (None, Some(0)));
        assert_eq!(resolve(None, None).unwrap(), (None, None));
    }

    #[test]
    fn an_unknown_number_needs_its_group_said() {
        assert_eq!(resolve(Some("3999999"), Some("5")).unwrap(), (Some(3_999_999), Some(5)));
        let failure = resolve(Some("3999999"), None).unwrap_err().to_string();
        assert!(failure.contains("--uid 3999999") && failure.contains("--gid"), "{failure}");
    }

    #[test]
    fn an_unknown_user_and_an_unknown_group_are_both_told() {
        let failure = resolve(Some("no-such-user"), Some("no-such-group")).unwrap_err().to_string();
        assert!(
            failure.contains("--uid no-such-user") && failure.contains("--gid no-such-group"),
            "{failure}"
        );
        let failure = resolve(Some("3999999"), Some("no-such-group")).unwrap_err().to_string();
        assert!(!failure.contains("--uid"), "{failure}");
    }

    #[test]
    fn an_unknown_name_says_where_it_was_looked_for() {
        let failure = resolve(Some("no-such-user"), None).unwrap_err().to_string();
        assert!(failure.contains("no-such-user") && failure.contains("/etc/passwd"), "{failure}");
        let failure = super::check_user("as", "no-such-user").unwrap_err().to_string();
        assert!(failure.contains("--as no-such-user: no user of that name in /etc/passwd"), "{failure}");
        super::check_user("as", "root").unwrap();
        super::check_user("as", "3999999").unwrap();
        let failure = resolve(None, Some("no-such-group")).unwrap_err().to_string();
        assert!(failure.contains("no-such-group") && failure.contains("/etc/group"), "{failure}");
    }
}

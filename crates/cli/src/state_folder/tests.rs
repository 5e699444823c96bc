//! Where the state folder is, and what it keeps.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use super::{Record, SavedApp, SavedList, StateFolder};
use crate::exit_code::ExitCode;

fn choose(variables: &[(&str, &str)], uid: u32) -> Option<StateFolder> {
    let variable = |name: &str| {
        variables.iter().find(|(known, _)| *known == name).map(|(_, value)| OsString::from(value))
    };
    StateFolder::choose(variable, uid)
}

fn folder(path: &Path) -> StateFolder {
    choose(&[("ALLCORES_STATE_DIR", path.to_str().unwrap())], 0).unwrap()
}

fn record() -> Record {
    let environment = [
        ("PATH".into(), "/bin".into()),
        (OsString::from_vec(vec![b'\xff']), OsString::from_vec(vec![b'a', b'\xfe'])),
    ];
    let arguments = vec!["--name".into(), "web".into(), "--".into(), OsString::from_vec(vec![0xff])];
    let (folder, log) = (PathBuf::from("/srv"), PathBuf::from("/srv/web.log"));
    Record::new("web".parse().unwrap(), arguments, folder, log, environment)
}

#[test]
fn the_folder_is_said_or_the_systems_or_the_users() {
    let paths = |variables: &[(&str, &str)], uid| {
        choose(variables, uid).map(|folder| (folder.path.clone(), folder.log(&"web".parse().unwrap())))
    };
    let both = |path: &str, log: &str| Some((path.into(), log.into()));
    let home = ("HOME", "/home/a");
    assert_eq!(paths(&[("ALLCORES_STATE_DIR", "/x"), home], 7), both("/x", "/x/logs/web.log"));
    assert_eq!(paths(&[home], 0), both("/var/lib/allcores", "/var/log/allcores/web.log"));
    let own = "/home/a/.local/state/allcores";
    assert_eq!(paths(&[home], 7), both(own, "/home/a/.local/state/allcores/logs/web.log"));
    assert_eq!(paths(&[home, ("XDG_STATE_HOME", "relative")], 7).unwrap().0, Path::new(own));
    assert_eq!(paths(&[home, ("XDG_STATE_HOME", "/s")], 7), both("/s/allcores", "/s/allcores/logs/web.log"));
    assert_eq!(paths(&[], 7), None);
}

#[test]
fn a_record_of_a_file_can_be_of_another_environment() {
    let of = |words: &[&str]| {
        let arguments = words.iter().map(OsString::from).collect();
        Record::new("web".parse().unwrap(), arguments, "/srv".into(), PathBuf::new(), [])
    };
    let moved = |words: &[&str]| {
        let record = of(words).in_environment("test")?;
        let words = record.arguments().map(|word| word.to_str().unwrap().to_owned());
        Some(words.collect::<Vec<_>>().join(" "))
    };
    let plain = ["--name", "web", "--config", "/a.toml", "--app", "web", "--workers=2"];
    let expected = Some("--name web --config /a.toml --app web --env-name test --workers=2".to_owned());
    assert_eq!(moved(&plain), expected);
    let named = [&plain[..6], &["--env-name", "production", "--workers=2"]].concat();
    assert_eq!(moved(&named), expected);
    assert_eq!(moved(&["--name", "web", "--", "node", "--app", "x"]), None);
}

#[test]
fn a_record_comes_back_as_it_was_in_whatever_bytes() {
    let temporary = tempfile::tempdir().unwrap();
    let state = folder(&temporary.path().join("state"));
    state.prepare().unwrap();
    assert!(state.names().unwrap().is_empty());
    state.change(|change| change.keep(&record())).unwrap();
    let read = state.record(record().name()).unwrap().unwrap();
    assert_eq!(read, record());
    assert_eq!(read.environment().collect::<Vec<_>>(), record().environment().collect::<Vec<_>>());
    assert_eq!((read.arguments().count(), read.log()), (4, PathBuf::from("/srv/web.log")));
    assert_eq!(state.names().unwrap(), [record().name().clone()]);
    let mode = state.record_file(record().name()).metadata().unwrap().mode() & 0o777;
    assert_eq!(mode, 0o600, "its environment is for nobody else");
    assert!(state.change(|change| change.forget(record().name())).unwrap());
    assert!(!state.change(|change| change.forget(record().name())).unwrap());
    assert!(state.record(record().name()).unwrap().is_none());
}

#[test]
fn what_a_reload_was_given_lies_over_what_was_typed() {
    let of = |arguments: &[&str]| {
        let arguments = arguments.iter().map(Into::into).collect();
        Record::new("web".parse().unwrap(), arguments, "/srv".into(), "/srv/web.log".into(), [])
    };
    let variable = |key: &str, value: &str| (OsString::from(key), OsString::from(value));
    let typed = of(&["--name", "web", "--env=A=1", "--env=AB=1", "--", "node", "--env=A=1"]);
    let with = typed.clone().with(None, &[variable("A", "2=3"), variable("C", "")]);
    let expected = ["--name", "web", "--env=AB=1", "--env=A=2=3", "--env=C=", "--", "node", "--env=A=1"];
    assert_eq!(with, of(&expected));
    let of_file = of(&["--name", "web", "--config", "/srv/allcores.toml", "--app", "web"]);
    let with = of_file.clone().with(Some(vec!["node".into(), "2.js".into()]), &[]);
    let expected = ["--name", "web", "--config", "/srv/allcores.toml", "--app", "web", "--", "node", "2.js"];
    assert_eq!(with, of(&expected));
    assert_eq!(with.with(Some(vec!["node".into(), "2.js".into()]), &[]), of(&expected));
    assert_eq!(of_file.clone().with(None, &[]), of_file);
    assert_eq!(
        typed.with(Some(vec!["x".into()]), &[]),
        of(&["--name", "web", "--env=A=1", "--env=AB=1", "--", "x"])
    );
}

#[test]
fn a_saved_list_leaves_the_one_before_it() {
    let temporary = tempfile::tempdir().unwrap();
    let state = folder(temporary.path());
    state.prepare().unwrap();
    assert!(state.saved().unwrap().is_none());
    let list = SavedList::new(vec![SavedApp { record: record(), workers: Some(3) }]);
    state.change(|change| change.save(&list)).unwrap();
    state.change(|change| change.save(&SavedList::new(Vec::new()))).unwrap();
    assert_eq!(state.saved().unwrap().unwrap(), SavedList::new(Vec::new()));
    let before = std::fs::read(temporary.path().join("saved.json.before")).unwrap();
    assert_eq!(serde_json::from_slice::<SavedList>(&before).unwrap(), list);
}

#[test]
fn an_app_is_taken_out_of_the_saved_list_and_the_others_stay() {
    let temporary = tempfile::tempdir().unwrap();
    let state = folder(temporary.path());
    state.prepare().unwrap();
    let web = record();
    assert!(!state.change(|change| change.unsave(web.name())).unwrap());
    let api = Record::new("api".parse().unwrap(), Vec::new(), "/srv".into(), "/srv/api.log".into(), []);
    let [web, api] = [web, api].map(|record| SavedApp { record, workers: Some(3) });
    state.change(|change| change.save(&SavedList::new(vec![web.clone(), api.clone()]))).unwrap();
    assert!(state.change(|change| change.unsave(web.record.name())).unwrap());
    assert!(!state.change(|change| change.unsave(web.record.name())).unwrap());
    assert_eq!(state.saved().unwrap().unwrap(), SavedList::new(vec![api]));
}

#[test]
fn what_cannot_be_understood_is_refused_with_its_place() {
    let temporary = tempfile::tempdir().unwrap();
    let state = folder(temporary.path());
    state.prepare().unwrap();
    for (text, part) in [("{", "EOF"), ("{\"version\": 2}", "version 2"), ("[]", "web.json")] {
        std::fs::write(state.record_file(record().name()), text).unwrap();
        let failure = state.record(record().name()).unwrap_err();
        assert_eq!(failure.code(), ExitCode::StateFolder);
        let shown = failure.to_string();
        assert!(shown.contains(part) && shown.contains("web.json"), "{text}: {shown}");
    }
}

#[test]
fn a_folder_that_others_may_write_to_is_refused() {
    let temporary = tempfile::tempdir().unwrap();
    std::fs::set_permissions(temporary.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
    let failure = folder(temporary.path()).prepare().unwrap_err();
    assert_eq!(failure.code(), ExitCode::StateFolder);
    assert!(failure.to_string().contains("mode 777"), "{failure}");
}

#[test]
fn a_draft_that_was_left_by_who_was_killed_is_in_nobodys_way() {
    let temporary = tempfile::tempdir().unwrap();
    let state = folder(temporary.path());
    state.prepare().unwrap();
    let draft = state.records().join("web.json.new");
    std::fs::write(&draft, "half a rec").unwrap();
    assert!(state.names().unwrap().is_empty());
    state.change(|change| change.keep(&record())).unwrap();
    assert_eq!(state.record(record().name()).unwrap().unwrap(), record());
    assert!(!draft.exists());
}

#[test]
fn what_many_change_at_once_has_all_their_changes() {
    let temporary = tempfile::tempdir().unwrap();
    let state = folder(temporary.path());
    state.change(|change| change.keep(&record())).unwrap();
    let add = |name: String| {
        state.change(|change| {
            let record = state.record(record().name())?.expect("it was kept");
            change.keep(&record.with(None, &[(name.into(), OsString::new())]))
        })
    };
    std::thread::scope(|scope| {
        for thread in 0..4 {
            scope.spawn(move || (0..10).for_each(|count| add(format!("{thread}-{count}")).unwrap()));
        }
    });
    assert_eq!(state.record(record().name()).unwrap().unwrap().arguments().count(), 4 + 40);
}

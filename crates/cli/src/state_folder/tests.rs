//! Where the state folder is, and what it keeps.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use super::{Given, Record, SavedApp, SavedList, StateFolder};
use crate::exit_code::ExitCode;

fn choose(variables: &[(&str, &str)], uid: u32) -> Option<StateFolder> {
    let variable = |name: &str| {
        variables.iter().find(|(known, _)| *known == name).map(|(_, value)| OsString::from(value))
    };
    StateFolder::choose(variable, || variable("HOME").map(PathBuf::from), uid)
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
    assert_eq!((paths(&[], 7), paths(&[("HOME", "")], 7)), (None, None));
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
fn what_reloads_gave_is_part_of_a_record_that_older_programs_refuse() {
    let of = |command: Option<&str>, env: &[(&str, &str)], environment: Option<&str>| Given {
        command: command.map(|word| vec![word.to_owned()]),
        env: env.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
        environment: environment.map(str::to_owned),
        scaled: None,
    };
    let mut given = of(Some("a"), &[("A", "1"), ("B", "1")], None);
    given.join(of(None, &[("B", "2=3"), ("C", "")], Some("test")));
    assert_eq!(given, of(Some("a"), &[("A", "1"), ("B", "2=3"), ("C", "")], Some("test")));
    given.join(of(Some("b"), &[], None));
    assert_eq!(
        (given.command.as_deref(), given.environment.as_deref()),
        (Some(&["b".into()][..]), Some("test"))
    );
    let written = |given| serde_json::to_value(record().giving(given)).unwrap();
    assert_eq!(written(given.clone())["version"], 2);
    assert_eq!(serde_json::from_value::<Record>(written(given.clone())).unwrap().given(), &given);
    assert_eq!(written(Given::default())["version"], 1);
    // As the version before wrote it.
    let mut before = written(Given::default());
    before.as_object_mut().unwrap().remove("given");
    assert_eq!(serde_json::from_value::<Record>(before).unwrap(), record());
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
    for (text, part) in [("{", "EOF"), ("{\"version\": 3}", "version 3"), ("[]", "web.json")] {
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
            let mut given = record.given().clone();
            given.env.insert(name, String::new());
            change.keep(&record.giving(given))
        })
    };
    std::thread::scope(|scope| {
        for thread in 0..4 {
            scope.spawn(move || (0..10).for_each(|count| add(format!("{thread}-{count}")).unwrap()));
        }
    });
    assert_eq!(state.record(record().name()).unwrap().unwrap().given().env.len(), 40);
}

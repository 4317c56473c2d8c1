//! The program itself, where it cannot open a window.

use std::process::{Command, Output};

fn run(arguments: &[&str], language: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_perennial-wizard"))
        .args(arguments)
        .env_clear()
        .env("LANG", language)
        .output()
        .expect("the program runs")
}

fn words(of: &[u8]) -> String {
    String::from_utf8_lossy(of).into_owned()
}

#[test]
fn without_a_display_it_names_the_way_on_a_terminal() {
    for (language, part) in [("en_GB", "cannot open a window"), ("de_DE", "kein Fenster")] {
        let output = run(&["renew"], language);
        assert_eq!(output.status.code(), Some(1));
        let said = words(&output.stderr);
        assert!(said.contains(part), "{said}");
        assert!(said.contains("perennial-agent renew --user"), "{said}");
    }
}

#[test]
fn it_knows_its_arguments() {
    let output = run(&["--help"], "");
    assert!(output.status.success());
    assert!(words(&output.stdout).contains("preferences"));
    for arguments in [&["renw"][..], &["--socket"]] {
        assert_eq!(run(arguments, "").status.code(), Some(2), "{arguments:?}");
    }
}

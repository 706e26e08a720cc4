//! The interface to the service manager: readiness and watchdog ([`Notify`]), passed listeners ([`Sockets`]), descriptors
//! ([`descriptors`]), and the packaged files ([`print`](mod@print)).
//!
//! Without a service manager, [`Notify`] and [`Sockets`] do nothing.

pub mod descriptors;
pub mod handover;
mod notify;
pub mod print;
mod sockets;

pub use notify::{Notify, Watchdog};
pub use sockets::{PassedError, Sockets};

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::print::{Printable, text};
    use crate::cli::Cli;
    use crate::config::Config;
    use crate::paths::PACKAGED_CONFIG;

    fn read(path: &str) -> String {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
        std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    #[test]
    fn the_packaged_manual_and_completions_are_those_of_this_command_line() {
        let files = [
            (Printable::Man, "man", "pushward.8"),
            (Printable::Bash, "bash", "completions/pushward.bash"),
            (Printable::Zsh, "zsh", "completions/_pushward"),
            (Printable::Fish, "fish", "completions/pushward.fish"),
        ];
        for (what, name, file) in files {
            let file = format!("src/service/{file}");
            let same = read(&file) == String::from_utf8(text(what, Cli::definition()).unwrap()).unwrap();
            assert!(same, "regenerate it: cargo run -- print {name} > {file}");
        }
    }

    #[test]
    fn the_packaged_configuration_is_the_default_one_but_for_its_places() {
        let parse = |file: &str| Config::parse(&read(file), Path::new(PACKAGED_CONFIG)).unwrap();
        let (packaged, mut default) = (parse("src/service/config.toml"), parse("config.toml"));
        default.state = "/var/lib/pushward".into();
        default.hosts[0].certificate = "/var/lib/pushward/certs/localhost.pem".into();
        default.hosts[0].key = "/var/lib/pushward/certs/localhost.key".into();
        default.admin.socket = "/run/pushward/admin.sock".into();
        assert_eq!(packaged, default);
    }

    #[test]
    fn the_package_has_all_its_files_and_the_unit_names_them() {
        let manifest: toml::Table = read("Cargo.toml").parse().unwrap();
        let deb = &manifest["package"]["metadata"]["deb"];
        let assets = deb["assets"].as_array().unwrap();
        let asset = |asset: &toml::Value, at: usize| asset[at].as_str().unwrap().to_owned();
        let built = "target/release/pushward";
        let sources: Vec<_> = assets.iter().map(|each| asset(each, 0)).filter(|source| source != built).collect();
        assert_eq!(sources.len() + 1, assets.len(), "the program is missing");
        let (pages, files): (Vec<_>, Vec<_>) = sources.iter().partition(|source| *source == "docs/*.md");
        files.into_iter().for_each(|source| assert!(!read(source).is_empty(), "{source}"));
        assert!(pages.len() == 1 && !read("docs/README.md").is_empty(), "the documentation is missing");
        for script in ["postinst", "postrm"] {
            let script = read(&format!("{}/{script}", deb["maintainer-scripts"].as_str().unwrap()));
            assert!(script.starts_with("#!/bin/sh\nset -e\n") && script.contains("#DEBHELPER#"), "{script}");
        }
        let unit = read(&format!("{}/pushward.service", deb["systemd-units"]["unit-scripts"].as_str().unwrap()));
        assert!(unit.contains(&format!("\nExecStart=/usr/bin/pushward --config {PACKAGED_CONFIG} run\n")), "{unit}");
        let destinations: Vec<_> = assets.iter().map(|each| asset(each, 1)).collect();
        let configuration = PACKAGED_CONFIG.trim_start_matches('/').to_owned();
        assert!(destinations.contains(&configuration) && destinations.contains(&"usr/bin/".to_owned()));
        assert_eq!(deb["conf-files"].as_array().unwrap(), &[PACKAGED_CONFIG.into()]);
        assert!(read("src/service/deb/postinst").contains("adduser") && unit.contains("\nUser=pushward\n"));
        assert!(unit.contains("\nStateDirectory=pushward\n") && unit.contains("\nRuntimeDirectory=pushward\n"));
    }
}

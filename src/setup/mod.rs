//! `pushward setup`: creates a configuration that `pushward check` accepts, from a domain and its server.
//!
//! Values that are not given as options are asked for, or detected: the server by connecting to it, the certificate by
//! looking in the usual directories. The result is checked as `pushward check` does. The remaining steps at the server are
//! printed.

use std::fs::OpenOptions;
use std::io::{self, IsTerminal, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::check;
use crate::net::certificate;
use crate::stdout;

mod advice;
mod ask;
mod draft;
mod error;
mod find;
mod options;

use ask::{Prompt, PromptQuestion};
use draft::Draft;
use error::SetupError;
use find::FoundServer;
pub use options::SetupOptions;

/// Writes the configuration, checks it, and prints the remaining steps. The exit code is that of `pushward check`, or 1 if
/// nothing could be written, or 2 if options are missing.
pub async fn run(config: &Path, options: SetupOptions) -> ExitCode {
    let output = options.output.clone().unwrap_or_else(|| config.to_owned());
    match write(&output, options).await {
        Ok(advice) => {
            let written = format!("{} written. `pushward check` reports:\n", output.display());
            // The check may take some seconds. If this cannot be printed, neither can the report.
            drop(stdout::print(written));
            let report = check::examine(&output).await;
            stdout::print_or_fail(format!("{report}\n{advice}"), report.exit())
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(error.exit())
        }
    }
}

/// Writes the file. Returns the remaining steps at the server and the following ones.
async fn write(output: &Path, options: SetupOptions) -> Result<String, SetupError> {
    if output.exists() && !options.force {
        return Err(SetupError::Exists(output.to_owned()));
    }
    let mut asker = Prompt { interactive: !options.yes && io::stdin().is_terminal() };
    if options.domain.is_none() && !asker.asks() {
        return Err(SetupError::Missing(missing(&options)));
    }
    let mut draft = Draft::new(&options, output);
    let domain =
        PromptQuestion { text: "Domain, as in user@DOMAIN", suggestion: String::new(), given: options.domain.clone() };
    asker.until_right(&mut draft, domain, |draft, answer| draft.domain = answer)?;
    let found = server(&mut asker, &mut draft, &options).await?;
    if draft.certificate.is_none() {
        draft.certificate = certificate_of(&mut asker, &draft)?;
    }
    let config = draft.parse().map_err(SetupError::Wrong)?;
    save(output, &draft.to_string(), options.force)
        .map_err(|source| SetupError::Unwritable { path: output.to_owned(), source })?;
    Ok(advice::next(&config, &found))
}

/// Returns the server: the one in the options, or a detected one that the user confirms.
async fn server(asker: &mut Prompt, draft: &mut Draft, options: &SetupOptions) -> Result<FoundServer, SetupError> {
    let tls = options.upstream_tls;
    let mut found = find::server(draft, options.upstream.as_deref(), tls).await;
    if options.upstream.is_none() && asker.asks() {
        let later = if found.ready { "" } else { " The steps for that are printed at the end." };
        eprintln!("{found}{later}");
        let text = "The server's address and port for client connections";
        let question = PromptQuestion { text, suggestion: found.upstream.clone(), given: None };
        asker.until_right(draft, question, |draft, answer| draft.upstream = answer)?;
        if draft.upstream != found.upstream {
            found = find::server(draft, Some(&draft.upstream), tls).await;
        }
    }
    draft.upstream.clone_from(&found.upstream);
    draft.upstream_tls = found.tls;
    Ok(found)
}

/// Returns the options that are required but missing.
fn missing(options: &SetupOptions) -> Vec<&'static str> {
    let mut missing = vec!["--domain DOMAIN"];
    if options.certificate.is_none() {
        missing.push("--certificate FILE --key FILE (unless setup finds them)");
    }
    missing
}

/// Returns the paths of the certificate and its key. `None` if the default paths are correct.
fn certificate_of(asker: &mut Prompt, draft: &Draft) -> Result<Option<(PathBuf, PathBuf)>, SetupError> {
    let config = draft.parse().map_err(SetupError::Wrong)?;
    let Some(host) = config.hosts.first() else { return Ok(None) };
    let found = if host.certificate.exists() && host.key.exists() { None } else { find::certificate(&host.domain) };
    if !asker.asks() {
        let has = found.is_some() || host.certificate.exists() || certificate::wants_development(host);
        return if has { Ok(found) } else { Err(SetupError::NoCertificate(host.domain.clone())) };
    }
    let (certificate, key) = found.unwrap_or_else(|| (host.certificate.clone(), host.key.clone()));
    let pair = (
        PathBuf::from(asker.ask("The domain's certificate chain, PEM", &certificate.display().to_string())?),
        PathBuf::from(asker.ask("Its private key, PEM", &key.display().to_string())?),
    );
    Ok((pair != (host.certificate.clone(), host.key.clone())).then_some(pair))
}

/// Writes the file. An existing file keeps its owner and mode.
fn save(path: &Path, text: &str, force: bool) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).mode(0o640);
    if force {
        options.create(true).truncate(true)
    } else {
        options.create_new(true)
    };
    let mut file = options.open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

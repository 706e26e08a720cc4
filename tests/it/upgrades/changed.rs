//! The configuration has changed since the process started: addresses, the state directory, the socket for commands.

use std::fs;
use std::os::unix::fs::symlink;

use super::dark::{Dark, at_once};
use crate::support::{PATIENCE, Setup, free_address};

fn listen(address: &str) -> String {
    format!("[[listen]]\naddress = '{address}'\ntls = 'direct'\n")
}

/// Starts a process under a manager with a store, or one that is replaced in place, with one more address.
async fn with_address(stored: bool, address: &str) -> Dark {
    let table = listen(address);
    Dark::with(|setup| if stored { setup.stored(30) } else { setup.copied() }.table(&table)).await
}

async fn replaced(dark: &mut Dark, stored: bool) {
    if stored {
        dark.pushward.restarted().await;
    } else {
        dark.pushward.replaced().await;
    }
}

/// Regression test: each start failed, because the old listener excluded the new one.
#[tokio::test]
async fn an_address_becomes_all_addresses() {
    at_once([false, true], |stored| async move {
        let address = free_address();
        let mut dark = with_address(stored, &address.to_string()).await;
        let all = listen(&format!("0.0.0.0:{}", address.port()));
        dark.pushward.configure(|setup| setup.without_tables().table(&all));
        replaced(&mut dark, stored).await;
        assert!(tokio::net::TcpStream::connect(address).await.is_ok());
        dark.assert_goes_on(&[]).await;
    })
    .await;
}

#[tokio::test]
async fn the_page_moves_to_an_address_of_clients() {
    at_once([false, true], |stored| async move {
        let address = free_address();
        let mut dark = with_address(stored, &address.to_string()).await;
        let page = format!("'{address}'");
        dark.pushward.configure(|setup| setup.without_tables().set("admin.listen", &page));
        replaced(&mut dark, stored).await;
        dark.assert_goes_on(&[]).await;
    })
    .await;
}

#[tokio::test]
async fn a_removed_address_is_closed() {
    at_once([false, true], |stored| async move {
        let address = free_address();
        let mut dark = with_address(stored, &address.to_string()).await;
        dark.pushward.configure(Setup::without_tables);
        replaced(&mut dark, stored).await;
        assert!(tokio::net::TcpStream::connect(address).await.is_err());
        dark.assert_goes_on(&[]).await;
    })
    .await;
}

/// Regression test: a listener with a fixed port was used for the address without one, which comes first in the file.
#[tokio::test]
async fn an_address_without_a_port_takes_no_listener_of_another() {
    let fixed = listen(&free_address().to_string());
    let mut dark = Dark::new().await;
    dark.pushward.configure(|setup| setup.table(&fixed));
    assert!(dark.pushward.reload().await);
    dark.pushward.configure(|setup| setup.without_tables().table(&listen("127.0.0.1:0")).table(&fixed));
    dark.pushward.replaced().await;
    // The copies of the others stay for the next handover.
    dark.pushward.configure(|setup| setup.without_tables().table(&fixed));
    assert!(dark.pushward.reload().await);
    dark.pushward.replaced().await;
    dark.assert_goes_on(&[]).await;
}

/// Regression test: each can be opened alone, so the start failed for a minute, and all sessions ended.
#[tokio::test]
async fn new_addresses_that_exclude_each_other_replace_nothing() {
    let mut dark = Dark::new().await;
    let port = free_address().port();
    let tables = listen(&format!("0.0.0.0:{port}")) + &listen(&format!("[::]:{port}"));
    dark.pushward.configure(|setup| setup.table(&tables));
    dark.assert_upgrade_refused("cannot listen on").await;
}

#[tokio::test]
async fn a_socket_in_a_directory_that_does_not_exist_replaces_nothing() {
    let mut dark = Dark::new().await;
    dark.pushward.configure(|setup| setup.set("admin.socket", "'missing/admin.sock'"));
    dark.pushward.signal("-USR2");
    dark.pushward.logged(&["upgrade refused", "missing"]).await;
    dark.assert_undisturbed();
}

#[tokio::test]
async fn a_state_directory_that_a_link_no_longer_leads_to_replaces_nothing() {
    let mut dark = Dark::new().await;
    fs::rename(dark.pushward.file("state"), dark.pushward.file("old")).unwrap();
    fs::create_dir(dark.pushward.file("new")).unwrap();
    symlink("new", dark.pushward.file("state")).unwrap();
    dark.pushward.signal("-USR2");
    dark.pushward.logged(&["upgrade refused", "`state`"]).await;
    dark.assert_undisturbed();
}

/// The next process could not find what belongs to the sessions.
#[tokio::test]
async fn a_restart_with_another_state_directory_ends_the_sessions_in_order() {
    let mut dark = Dark::stored().await;
    dark.pushward.configure(|setup| setup.set("state", "'other'"));
    dark.pushward.order("restart");
    dark.server.footer(PATIENCE).await;
}

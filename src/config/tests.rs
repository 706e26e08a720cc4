//! Tests of what a configuration file may contain and what is refused.

use std::net::IpAddr;

use super::*;

const SHIPPED: &str = include_str!("../../config.toml");

fn parse(text: &str) -> Result<Config, ConfigErrors> {
    Config::parse(text, Path::new("config.toml"))
}

fn with_host(text: &str) -> String {
    format!("{text}\n[[host]]\ndomain = \"localhost\"\n")
}

/// Checks that a text has exactly this problem, as it is printed.
fn check(text: &str, expect: &str) {
    let errors = parse(&with_host(text)).expect_err("a problem was expected");
    assert_eq!(errors.to_string(), expect, "\nin\n{text}");
}

/// Returns the shipped file with its commented keys in force, for those lines for which `wanted` holds.
fn shipped_in_full(wanted: impl Fn(&str) -> bool) -> String {
    SHIPPED
        .lines()
        .filter(|line| wanted(line))
        .map(|line| line.strip_prefix('#').filter(|rest| !rest.is_empty() && !rest.starts_with(' ')).unwrap_or(line))
        .collect::<Vec<_>>()
        .join("\n")
}

#[test]
fn the_shipped_file_runs_as_it_is() {
    let config = parse(SHIPPED).unwrap();
    let direct = Listen { address: "[::]:5223".parse().unwrap(), tls: ListenTls::Direct, proxies: None };
    assert_eq!(config.listen, [Listen::default(), direct]);
    assert_eq!(config.hosts.len(), 1);
    assert_eq!(config.hosts[0].domain, "localhost");
    assert_eq!(config.hosts[0].upstream, Upstream::default());
    assert_eq!(config.stream_management, StreamManagement::default());
    assert_eq!(config.push, PushConfig::default());
    assert_eq!(config.limits, Limits::default());
    assert_eq!(
        config.admin,
        Admin { listen: Some(Admin::LISTEN), hosts: Vec::new(), socket: "state/admin.sock".into() }
    );
    assert_eq!(config.log, Log::default());
}

#[test]
fn the_shipped_file_shows_every_key_with_its_default() {
    assert_eq!(parse(&shipped_in_full(|line| !line.contains("# not set:"))).unwrap(), parse(SHIPPED).unwrap());
    let full = shipped_in_full(|_| true);

    let report = problem::ProblemReport::new(Path::new("config.toml"), &full);
    read(&report, &full, Path::new("config.toml"));
    let known = report.known();
    assert!(known.len() > 40, "only {} keys were read", known.len());
    let mut section = "";
    let mut shown = std::collections::BTreeSet::new();
    for line in full.lines().filter(|line| !line.starts_with('#')) {
        if line.starts_with('[') {
            section = line.split_once(' ').map_or(line, |(section, _)| section);
            let name = section.trim_matches(['[', ']']);
            shown.insert(match name.split_once('.') {
                Some(("host", key)) => ("[[host]]", key),
                Some(("push", key)) => ("[push]", key),
                Some(_) | None => ("", name),
            });
        } else if let Some((key, _)) = line.split_once(" = ") {
            assert!(line.contains("  # ") || key == "address", "{key} has no comment");
            shown.insert((section, key));
        }
    }
    assert_eq!(known, shown);
}

#[test]
fn a_host_is_the_only_required_section() {
    let config = Config::parse("[[host]]\ndomain = 'Example.ORG'", Path::new("/etc/pushward/config.toml")).unwrap();
    assert_eq!(config.listen, [Listen::default()]);
    assert_eq!(config.state, Path::new("/etc/pushward/state"));
    let [host] = config.hosts.as_slice() else { panic!("one host was expected") };
    assert_eq!(host.domain, "example.org");
    assert_eq!(host.certificate, Path::new("/etc/pushward/certs/example.org.pem"));
    assert_eq!(host.key, Path::new("/etc/pushward/certs/example.org.key"));
}

#[test]
fn unknown_keys_are_refused_with_the_nearest_known_one() {
    check("[push]\nmax_device = 3", "config.toml:2: [push] max_device: unknown key; did you mean max_devices?");
    check("[Push]", "config.toml:1: Push: unknown key; did you mean push?");
    check("[log]\ncolour = true", "config.toml:2: [log] colour: unknown key; known keys: format, level");
    check(
        "[push]\nhandshake_timeout = \"1s\"",
        "config.toml:2: [push] handshake_timeout: unknown key; move the key to [limits]",
    );
}

#[test]
fn transports_are_some_of_three_each_once() {
    let push = |text: &str| parse(&with_host(&format!("[push]\n{text}"))).map(|config| config.push);
    assert_eq!(push("transports = [\"session\", \"s2s\"]").unwrap().transports, [Transport::Session, Transport::S2s]);
    for text in ["[]", "[\"s2s\", \"s2s\"]"] {
        let errors = push(&format!("transports = {text}")).unwrap_err().to_string();
        assert!(
            errors
                .starts_with("config.toml:2: [push] transports: empty, or a transport is listed twice; write some of"),
            "{errors}"
        );
    }
    check(
        "[push]\ntransports = [\"smtp\"]",
        "config.toml:2: [push] transports: unknown transport \"smtp\"; \
         write some of \"s2s\", \"component\" and \"session\", each once",
    );
    assert_eq!(push("services = [\"Push.example\"]").unwrap().settings.services, ["push.example"]);
    let errors = push("services = [\"a@b\"]").unwrap_err().to_string();
    assert!(errors.starts_with("config.toml:2: [push] services: \"a@b\" is not a domain"), "{errors}");
}

#[test]
fn a_route_needs_a_domain_and_an_address() {
    let full =
        "[[push.route]]\ndomain = \"Push.example\"\naddress = \"10.0.0.5:5270\"\ntls = \"starttls\"\nca = \"ca.pem\"";
    let [route] = parse(&with_host(full)).unwrap().push.routes.try_into().unwrap();
    let address = Endpoint { host: "10.0.0.5".to_owned(), port: 5270 };
    let expect = Route { domain: "push.example".to_owned(), address, direct_tls: false, ca: Some("ca.pem".into()) };
    assert_eq!(route, expect);
    check(
        "[[push.route]]\ndomain = \"a\"",
        "config.toml:1: [[push.route]] address: missing; write address = \"10.0.0.5:5270\"",
    );
    let errors = parse(&with_host(&format!("{full}\n{full}"))).unwrap_err().to_string();
    assert_eq!(
        errors,
        "config.toml:7: [[push.route]] domain: push.example has two [[push.route]] sections; remove one of them"
    );
}

#[test]
fn a_component_needs_a_domain_of_its_own_and_a_secret() {
    let host = |text: &str| parse(&format!("[[host]]\ndomain = \"localhost\"\n[host.component]\n{text}"));
    let component = host("domain = \"a.localhost\"\nsecret = \"s\"").unwrap().hosts[0].component.clone().unwrap();
    let address = Endpoint { host: "127.0.0.1".to_owned(), port: 5347 };
    assert_eq!((&component.address, component.from), (&address, ComponentSender::Component));
    assert!(!format!("{component:?}").contains("\"s\""), "{component:?}");
    for (text, expect) in [
        ("secret = \"s\"", "config.toml:3: [host.component] domain: missing"),
        (
            "domain = \"localhost\"\nsecret = \"s\"",
            "config.toml:4: [host.component] domain: missing, or the same as the host's domain",
        ),
        ("domain = \"a\"", "config.toml:3: [host.component] secret: missing"),
        ("domain = \"a\"\nsecret = \"s\"\naddress = \"10.0.0.1:1\"", "config.toml:6: [host.component] address: notif"),
        ("domain = \"a\"\nsecret = \"s\"\nfrom = \"me\"", "config.toml:6: [host.component] from: unknown value"),
    ] {
        let errors = host(text).unwrap_err().to_string();
        assert!(errors.starts_with(expect), "{errors}");
    }
}

#[test]
fn name_servers_are_addresses() {
    let dns = parse(&with_host("[dns]\nservers = [\"192.0.2.1\", \"[::1]:5353\"]")).unwrap().dns;
    assert_eq!(dns, ["192.0.2.1:53".parse().unwrap(), "[::1]:5353".parse().unwrap()]);
    let errors = parse(&with_host("[dns]\nservers = [\"dns.example\"]")).unwrap_err().to_string();
    assert!(errors.starts_with("config.toml:2: [dns] servers: \"dns.example\" is not an address"), "{errors}");
}

#[test]
fn repeats_are_durations_in_order() {
    assert_eq!(parse(&with_host("[push]\nrepush = []")).unwrap().push.settings.repush, [] as [Duration; 0]);
    let two = parse(&with_host("[push]\nrepush = [\"10s\", \"1h\"]")).unwrap().push.settings.repush;
    assert_eq!(two, [Duration::from_secs(10), Duration::from_secs(3600)]);
    check(
        "[push]\nrepush = [\"60s\", \"30s\"]",
        "config.toml:2: [push] repush: 30s is not longer than the one before; write repush = [\"60s\", \"5m\"], or [] for none",
    );
    check(
        "[push]\nrepush = \"60s\"",
        "config.toml:2: [push] repush: expected an array of at most ten durations, found a string; write repush = [\"60s\", \
         \"5m\"], or [] for none",
    );
}

#[test]
fn a_value_of_the_wrong_type_is_refused_with_what_to_write() {
    check(
        "[push]\nwith_body = \"yes\"",
        "config.toml:2: [push] with_body: expected a boolean, found a string; write true or false, without quotes",
    );
    check(
        "[push]\nmax_devices = 2.5",
        "config.toml:2: [push] max_devices: expected a whole number, found a number with a fraction; \
         write a whole number from 1 to 100",
    );
    check(
        "drain_timeout = 10",
        "config.toml:1: drain_timeout: expected a duration in quotes, found a whole number; \
         write a duration from \"0s\" to \"1h\", such as \"10s\"",
    );
    check("log = \"debug\"", "config.toml:1: log: expected a table, found a string; write [log] on a line of its own");
    check(
        "[listen]\naddress = \"[::]:1\"",
        "config.toml:1: listen: expected an array of tables, found a table; write [[listen]] on a line of its own",
    );
}

#[test]
fn an_empty_path_is_refused() {
    check("state = \"\"", "config.toml:1: state: empty; write a path");
}

#[test]
fn a_value_out_of_bounds_is_refused_with_the_bounds() {
    check(
        "[limits]\nstanza = \"9 KB\"\nunauthenticated_stanza = 10000",
        "config.toml:2: [limits] stanza: \"9 KB\" is out of range; write a size from \"10000 B\" to \"64 MiB\"",
    );
    check(
        "[store]\npatience = \"10ms\"",
        "config.toml:2: [store] patience: \"10ms\" is out of range; write a duration from \"1s\" to \"1h\", such as \"1m\"",
    );
    check(
        "[fast]\nttl = 21",
        "config.toml:2: [fast] ttl: expected a duration in quotes, found a whole number; write a duration from \"0s\" to \"10years 7days 12h\", such as \"21days\"",
    );
    check(
        "[push]\nmax_devices = 0",
        "config.toml:2: [push] max_devices: 0 is out of range; write a whole number from 1 to 100",
    );
    check(
        "[push]\npublish_timeout = \"0s\"",
        "config.toml:2: [push] publish_timeout: \"0s\" is out of range; write a duration from \"50ms\" to \"1h\", such as \"1m\"",
    );
    for written in ["-1", "\"-1\"", "\"much\""] {
        let quoted = written.trim_matches('"');
        check(
            &format!("[limits]\nstanza = {written}"),
            &format!(
                "config.toml:2: [limits] stanza: \"{quoted}\" is not a size; \
                 write a size from \"10000 B\" to \"64 MiB\""
            ),
        );
    }
    let smallest = parse(&with_host("[limits]\nstanza = \"10000 B\"\nunauthenticated_stanza = \"10000 B\"")).unwrap();
    assert_eq!(smallest.limits.stanzas.client, 10_000);
    for text in ["max_errors = -1", "max_errors = 99999999999999999999", "max_errors = 0x7fffffff"] {
        let errors = parse(&with_host(&format!("[push]\n{text}"))).unwrap_err().to_string();
        assert!(errors.contains("[push] max_errors"), "{errors}");
    }
}

#[test]
fn settings_that_contradict_each_other_are_refused() {
    for (text, expect) in [
        (
            "[limits]\nstanza = \"20 KiB\"\nunauthenticated_stanza = \"21 KiB\"",
            "3: [limits] unauthenticated_stanza: larger",
        ),
        ("[limits]\nsession_queue = \"20 KiB\"", "2: [limits] session_queue: smaller than stanza (1 MiB)"),
        ("[limits]\nupstream_stanza = \"20 KiB\"", "2: [limits] upstream_stanza: smaller than stanza (1 MiB)"),
        ("[limits]\nconnections = 5", "1: [limits] connections_per_address: larger than connections"),
        (
            "[push]\nmax_hibernation_timeout = \"1m\"",
            "2: [push] max_hibernation_timeout: shorter than [stream_management] resume_timeout",
        ),
        ("[push]\njingle = true\nextensions = false", "2: [push] jingle: requires extensions"),
        ("[[listen]]\n[[listen]]", "2: [[listen]] address: [::]:5222 is in two [[listen]] sections"),
        (
            "[[listen]]\naddress = \"0.0.0.0:5222\"\n[[listen]]\naddress = \"127.0.0.1:5222\"",
            "4: [[listen]] address: 127.0.0.1:5222 and 0.0.0.0:5222, of another [[listen]], cannot be used",
        ),
        ("[[host]]\ndomain = \"LOCALHOST\"", "4: [[host]] domain: localhost has two [[host]] sections"),
        ("[[listen]]\naddress = \"0.0.0.0:5322\"", "3: [[host]] upstream: Pushward itself listens on 127.0.0.1:5322"),
    ] {
        let errors = parse(&with_host(text)).unwrap_err().to_string();
        assert!(errors.starts_with(&format!("config.toml:{expect}")), "{errors}\nin\n{text}");
        assert_eq!(errors.lines().count(), 1, "{errors}");
    }
}

#[test]
fn a_cluster_names_what_it_lacks_and_takes_the_rest_from_its_address() {
    let cluster = |more: &str| {
        let store = "[store]\nengine = \"postgres\"\nurl = \"postgresql://p@localhost/p\"\n";
        let files = "certificate = \"a\"\nkey = \"b\"\nca = \"c\"\n";
        parse(&with_host(&format!("{store}[cluster]\n{files}{more}")))
    };
    let given = cluster("node = 255\nlisten = \"10.0.0.5:5280\"").unwrap().cluster.unwrap();
    assert_eq!(
        (given.node.get(), given.lease, given.advertise.to_string()),
        (255, 10 * SECOND, "10.0.0.5:5280".into())
    );
    let named = cluster("node = 1\nlisten = \"0.0.0.0:5280\"\nadvertise = \"one.internal:1\"\nlease = \"3s\"");
    let named = named.unwrap().cluster.unwrap();
    assert_eq!((named.advertise.to_string(), named.lease), ("one.internal:1".into(), 3 * SECOND));
    for (more, expect) in [
        ("node = 1\nlisten = \"0.0.0.0:5280\"", "9: [cluster] advertise: missing, and listen names no single address"),
        ("node = 0\nlisten = \"10.0.0.5:5280\"", "8: [cluster] node: 0 is out of range"),
        ("node = 1\nlisten = \"10.0.0.5:5222\"", "9: [cluster] listen: cannot be used at the same time as [::]:5222"),
        (
            "node = 1\nlisten = \"127.0.0.1:9522\"",
            "9: [cluster] listen: cannot be used at the same time as 127.0.0.1:9522",
        ),
        ("node = 1\nlisten = \"10.0.0.5:5280\"\nlease = \"2s\"", "10: [cluster] lease: \"2s\" is out of range"),
        ("listen = \"10.0.0.5:5280\"", "4: [cluster] node: missing"),
    ] {
        let errors = cluster(more).unwrap_err().to_string();
        assert!(errors.starts_with(&format!("config.toml:{expect}")), "{errors}\nin\n{more}");
        assert_eq!(errors.lines().count(), 1, "{errors}");
    }
    let errors =
        parse(&with_host("[cluster]\nnode = 1\nlisten = \"10.0.0.5:1\"\ncertificate = \"a\"\nkey = \"b\"\nca = \"c\""));
    let errors = errors.unwrap_err().to_string();
    assert!(errors.contains("a cluster needs a database that its nodes share"), "{errors}");
    assert_eq!(parse(&with_host("")).unwrap().cluster, None);
}

#[test]
fn passwords_leave_the_machine_unencrypted_only_on_request() {
    let upstream = |address: &str, rest: &str| {
        parse(&format!("[[host]]\ndomain = \"localhost\"\nupstream = \"{address}\"\n{rest}"))
    };
    // A name is checked when it is connected to, by what it resolves to.
    for address in
        ["127.0.0.1:1", "127.1.2.3:1", "[::1]:1", "[::ffff:127.0.0.1]:1", "localhost:1", "xmpp.example.org:1"]
    {
        assert!(upstream(address, "").is_ok(), "{address}");
    }
    for address in ["10.0.0.1:1", "[fe80::1]:1", "0.0.0.0:1"] {
        for tls in ["starttls", "direct"] {
            assert!(upstream(address, &format!("upstream_tls = \"{tls}\"")).is_ok(), "{address} {tls}");
        }
        let errors = upstream(address, "").unwrap_err().to_string();
        assert!(errors.starts_with("config.toml:3: [[host]] upstream: passwords would cross the network"), "{errors}");
        let config = upstream(address, "upstream_insecure = true").unwrap();
        assert_eq!(config.hosts[0].upstream.to_string(), address);
    }
    for address in ["", "localhost", "localhost:", ":5222", "localhost:0", "a:b:1", "[::1]", "unix:", "http://a:1"] {
        assert!(upstream(address, "").unwrap_err().to_string().contains("[[host]] upstream: "), "{address}");
    }
}

#[test]
fn a_server_may_be_behind_a_unix_socket() {
    let config = |text: &str| {
        Config::parse(&format!("[[host]]\ndomain = \"localhost\"\n{text}"), Path::new("/etc/pushward/config.toml"))
    };
    let upstream = config("upstream = \"unix:c2s.sock\"").unwrap().hosts[0].upstream.clone();
    assert_eq!(upstream, Upstream::Unix("/etc/pushward/c2s.sock".into()));
    assert_eq!(upstream.to_string(), "unix:/etc/pushward/c2s.sock");
    for (text, expect) in [
        ("upstream = \"unix:\"", "[[host]] upstream: no path after \"unix:\""),
        (&format!("upstream = \"unix:/{}\"", "a".repeat(107)), "[[host]] upstream: /aaa"),
        (
            "upstream_source = [\"127.0.0.2\"]\nupstream = \"unix:/a\"",
            "[[host]] upstream_source: does not apply to a unix socket",
        ),
    ] {
        let errors = config(text).unwrap_err().to_string();
        assert!(errors.starts_with(&format!("/etc/pushward/config.toml:3: {expect}")), "{errors}");
    }
}

#[test]
fn sources_are_addresses_of_machines_of_the_servers_kind() {
    let sources = |text: &str| {
        let host = parse(&format!("[[host]]\ndomain = \"localhost\"\nupstream_source = {text}"));
        host.map(|config| config.hosts[0].upstream_source.clone()).map_err(|errors| errors.to_string())
    };
    let [two, three] = ["127.0.0.2", "127.0.0.3"].map(|address| address.parse::<IpAddr>().unwrap());
    assert_eq!(sources("[\"127.0.0.2\", \"::ffff:127.0.0.3\"]").unwrap(), [two, three]);
    for (text, expect) in [
        ("[\"eth0\"]", "\"eth0\" is not a usable address"),
        ("[\"0.0.0.0\"]", "\"0.0.0.0\" is not a usable address"),
        ("[\"127.0.0.2\", \"127.0.0.2\"]", "an address is listed twice"),
        ("[\"::1\"]", "::1 cannot connect to 127.0.0.1:5322: one is an IPv4 address, the other an IPv6 address"),
        ("\"127.0.0.2\"", "expected an array of strings"),
    ] {
        let errors = sources(text).unwrap_err();
        assert!(errors.starts_with(&format!("config.toml:3: [[host]] upstream_source: {expect}")), "{errors}");
    }
}

#[test]
fn proxies_are_trusted_on_loopback_unless_others_are_named() {
    let listen = |text: &str| {
        let config = parse(&with_host(&format!("[[listen]]\n{text}")));
        config.map(|config| config.listen[0].clone()).map_err(|errors| errors.to_string())
    };
    let trusts = |text: &str, address: &str| listen(text).unwrap().proxies.unwrap().trust(address.parse().unwrap());
    assert_eq!(listen("proxy_protocol = false").unwrap().proxies, None);
    for (address, expect) in [
        ("127.0.0.1", true),
        ("127.9.9.9", true),
        ("::1", true),
        ("::ffff:127.0.0.1", true),
        ("10.0.0.1", false),
        ("::2", false),
    ] {
        assert_eq!(trusts("proxy_protocol = true", address), expect, "{address}");
    }
    let named = "proxy_protocol = true\ntrusted_proxies = [\"192.0.2.7\", \"10.0.0.0/8\", \"2001:db8::/32\"]";
    for (address, expect) in [
        ("192.0.2.7", true),
        ("192.0.2.8", false),
        ("::ffff:10.1.2.3", true),
        ("127.0.0.1", false),
        ("2001:db8::9", true),
    ] {
        assert_eq!(trusts(named, address), expect, "{address}");
    }
    let errors = listen("trusted_proxies = [\"10.0.0.0/8\"]").unwrap_err();
    assert!(
        errors.starts_with("config.toml:2: [[listen]] trusted_proxies: has an effect only with proxy_protocol"),
        "{errors}"
    );
    let errors = listen("proxy_protocol = true\ntrusted_proxies = [\"10.0.0.0/40\"]").unwrap_err();
    assert!(
        errors.starts_with("config.toml:3: [[listen]] trusted_proxies: \"10.0.0.0/40\" is not a network"),
        "{errors}"
    );
}

/// The ports on which Prosody's modules and ejabberd's example listen, and on which their documentation has optional services
/// listen.
const PORTS_OF_SERVERS: [u16; 21] = [
    1883, 3478, 4369, 4560, 5000, 5060, 5061, 5210, 5222, 5223, 5269, 5270, 5275, 5280, 5281, 5347, 5349, 5443, 5582,
    7777, 8888,
];

#[test]
fn no_port_of_prosody_or_ejabberd_is_taken_but_that_of_clients() {
    let config = parse(SHIPPED).unwrap();
    let clients = config.listen.iter().map(|listen| listen.address.port());
    let taken: Vec<_> = clients.chain(config.admin.listen.map(|address| address.port())).collect();
    assert_eq!(taken.len(), 3, "{taken:?}");
    // Pushward takes these over: the server moves to other ports.
    for port in taken.into_iter().filter(|port| ![5222, 5223].contains(port)) {
        assert!(!PORTS_OF_SERVERS.contains(&port), "{port}");
    }
    let Upstream::Tcp(moved) = Upstream::default() else { panic!("a port was expected") };
    assert!(!PORTS_OF_SERVERS.contains(&moved.port), "{moved}");
}

#[test]
fn tls_settings_without_effect_are_refused() {
    for (text, expect) in [
        ("upstream_ca = \"ca.pem\"", "upstream_ca: has an effect only with TLS to the server"),
        ("channel_binding = \"server-end-point\"", "channel_binding: has an effect only with TLS to the server"),
        ("upstream_insecure = true\nupstream_tls = \"direct\"", "upstream_insecure: has an effect only without TLS"),
        ("upstream_tls = \"on\"", "upstream_tls: unknown value \"on\"; write \"off\" or \"starttls\" or \"direct\""),
    ] {
        let errors = parse(&format!("[[host]]\ndomain = \"localhost\"\n{text}")).unwrap_err().to_string();
        assert!(errors.starts_with(&format!("config.toml:3: [[host]] {expect}")), "{errors}");
        assert_eq!(errors.lines().count(), 1, "{errors}");
    }
    let text = "[[host]]\ndomain = \"localhost\"\nupstream_tls = \"direct\"\nupstream_ca = \"ca.pem\"\n\
        channel_binding = \"server-end-point\"";
    let [host] = Config::parse(text, Path::new("/etc/pushward.toml")).unwrap().hosts.try_into().unwrap();
    assert_eq!(host.upstream_tls, UpstreamTls::Direct);
    assert_eq!(host.upstream_ca.as_deref(), Some(Path::new("/etc/ca.pem")));
    assert_eq!(host.channel_binding, ChannelBinding::ServerEndPoint);
}

#[test]
fn the_operators_listeners_can_be_moved_or_turned_off() {
    let admin = |text: &str| parse(&with_host(text)).map(|config| config.admin);
    assert_eq!(admin("[admin]\nlisten = \"\"").unwrap().listen, None);
    let moved = admin("state = \"/var/x\"\n[admin]\nlisten = \"[::1]:1\"").unwrap();
    assert_eq!(moved, Admin { listen: "[::1]:1".parse().ok(), hosts: Vec::new(), socket: "/var/x/admin.sock".into() });
    assert_eq!(admin("[admin]\nhosts = [\"Pushward.Internal.\"]").unwrap().hosts, ["pushward.internal"]);
    check(
        "[admin]\nhosts = [\"a:80\"]",
        "config.toml:2: [admin] hosts: \"a:80\" is not a host name; \
         write a host name without a port, such as \"pushward.internal\"",
    );
    assert_eq!(admin("[admin]\nsocket = \"/run/a\"").unwrap().socket, Path::new("/run/a"));
    check(
        "[admin]\nlisten = \"localhost\"",
        "config.toml:2: [admin] listen: \"localhost\" is not an address; \
         write an IP address and a port, such as \"127.0.0.1:9522\", or \"\" for none",
    );
    check(
        "[admin]\nlisten = \"127.0.0.1:5222\"",
        "config.toml:2: [admin] listen: 127.0.0.1:5222 is also the address of a [[listen]] section ([::]:5222); choose another port",
    );
    let longest = format!("/{}", "a".repeat(Admin::SOCKET_BYTES - 1));
    assert!(admin(&format!("[admin]\nsocket = \"{longest}\"")).is_ok());
    check(
        &format!("[admin]\nsocket = \"{longest}a\""),
        &format!(
            "config.toml:2: [admin] socket: {longest}a is longer than 107 bytes, the limit for the path of a socket; write a shorter path, such as \"/run/pushward/admin.sock\""
        ),
    );
}

#[test]
fn a_domain_is_normalised_or_refused() {
    let domain =
        |text: &str| parse(&format!("[[host]]\ndomain = \"{text}\"")).map(|config| config.hosts[0].domain.clone());
    assert_eq!(domain("EXAMPLE.org").unwrap(), "example.org");
    assert_eq!(domain("Müller.example").unwrap(), "müller.example");
    for text in ["my--chat.example", "-a.example", "xn--a.example", "123.example", "🦊.example"] {
        assert_eq!(domain(text).unwrap(), text);
    }
    for text in ["", "a b", "user@example.org", "example.org/x", "../../etc", "*.example.org", "a..b"] {
        assert!(domain(text).is_err(), "{text}");
    }
}

#[test]
fn a_misspelt_log_level_is_not_taken_for_a_module() {
    let level = |text: &str| parse(&with_host(&format!("[log]\nlevel = \"{text}\"")));
    for text in ["info", "DEBUG", "off", "pushward=debug", "warn,pushward::relay=trace", "info, rustls=warn,"] {
        assert!(level(text).is_ok(), "{text}");
    }
    for (text, wrong) in [
        ("inof", "unknown log level \"inof\""),
        ("", "no log level"),
        (" ,", "no log level"),
        ("debgu,", "unknown log level \"debgu\""),
        ("info,debgu", "unknown log level \"debgu\""),
        ("info, pushward", "unknown log level \"pushward\""),
        ("info,pushward=loud", "\"pushward=loud\" is not a valid log filter"),
        ("pushward=debug=info", "\"pushward=debug=info\" is not a valid log filter"),
    ] {
        let error = level(text).unwrap_err().to_string();
        assert!(error.contains(&format!(":2: [log] level: {wrong}")) && error.contains("; write \"error\""), "{error}");
    }
}

#[test]
fn all_problems_are_reported_together_in_the_order_of_lines() {
    let text =
        "state = 1\n[push]\nwith_body = 1\nmax_device = 1\n[[host]]\nupstream = \"x\"\n[limits]\ndepth = \"1\"\n";
    let errors = parse(text).unwrap_err();
    let places: Vec<_> = errors.problems().iter().map(|p| (p.line, p.key.as_str())).collect();
    let expect = [
        (1, "state"),
        (3, "[push] with_body"),
        (4, "[push] max_device"),
        (5, "[[host]] domain"),
        (6, "[[host]] upstream"),
        (8, "[limits] depth"),
    ];
    assert_eq!(places, expect);
    assert_eq!(errors.to_string().lines().count(), expect.len());
}

#[test]
fn syntax_errors_are_reported_with_the_other_problems() {
    let errors = parse("[push\nwith_body = 1\n[log]\nlevel = \n[limits]\ndepht = 3\n").unwrap_err();
    let text = errors.to_string();
    assert!(text.starts_with("config.toml:1: not valid TOML: "), "{text}");
    assert!(text.contains("config.toml:4: not valid TOML: "), "{text}");
    assert!(text.contains("config.toml:6: [limits] depht: unknown key; did you mean depth?"), "{text}");
    assert!(!text.contains("no [[host]] section"), "{text}");
}

#[test]
fn a_missing_file_or_one_without_hosts_is_reported_with_a_remedy() {
    assert_eq!(
        parse("").unwrap_err().to_string(),
        "config.toml:1: [[host]]: no [[host]] section; add [[host]] and domain = \"example.org\""
    );
    let errors = Config::load(Path::new("/nonexistent/config.toml")).unwrap_err().to_string();
    assert!(errors.starts_with("/nonexistent/config.toml: cannot read the file: No such file"), "{errors}");
}

proptest::proptest! {
    #[test]
    fn no_text_makes_the_reader_panic(text in "(\\[{0,2}(listen|host|push|limits|a)\\]{0,2}|[a-z_]{1,8} = |\"[^\"]{0,6}\"|[0-9.\\-]{1,9}|true|\\n|.){0,40}") {
        if let Err(errors) = parse(&text) {
            assert!(!errors.problems().is_empty());
        }
    }
}

#[test]
fn any_name_of_letters_digits_and_hyphens_is_a_push_service() {
    let text =
        "[push]\nservices = ['Ab--Gw.example']\n[[push.route]]\ndomain = 'ab--gw.example'\naddress = '10.0.0.5:5270'";
    let push = parse(&with_host(text)).unwrap().push.clone();
    assert_eq!(
        (push.settings.services[0].as_str(), push.routes[0].domain.as_str()),
        ("ab--gw.example", "ab--gw.example")
    );
    for (service, allowed) in [("AB--gw.example", true), ("gw🦊@ab--gw.example", true), ("ab-gw.example", false)] {
        assert_eq!(push.settings.allows(&crate::jid::Jid::new(service)), allowed, "{service}");
    }
}

#[test]
fn the_way_to_the_daemon_is_read_from_a_file_with_problems() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    for (text, socket, is_fine) in [
        ("[[host]]\ndomain = 'a.test'\n", "state/admin.sock", true),
        ("state = 'here'\n[push]\nmax_deviecs = 3\n", "here/admin.sock", false),
        ("[admin]\nsocket = 'a.sock'\n[limits]\ndepth = 'deep'\n", "a.sock", false),
        ("state = 'here'\n[[host]\ndomain = 'a.test'\n", "here/admin.sock", false),
        ("state = 3\n", "state/admin.sock", false),
    ] {
        std::fs::write(path("config.toml"), text).unwrap();
        let (access, problems) = Config::load_access(&path("config.toml")).unwrap();
        assert_eq!((access.socket, problems.is_none()), (path(socket), is_fine), "{text}");
    }
    let missing = Config::load_access(&path("none.toml")).unwrap_err().to_string();
    assert!(missing.contains("--config FILE") && missing.contains("/etc/pushward/config.toml"), "{missing}");
}

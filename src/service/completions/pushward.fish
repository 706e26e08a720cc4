# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_pushward_global_optspecs
    string join \n c/config= h/help V/version
end

function __fish_pushward_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_pushward_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_pushward_using_subcommand
    set -l cmd (__fish_pushward_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c pushward -n "__fish_pushward_needs_command" -s c -l config -d 'The configuration file; where there is none of that name, /etc/pushward/config.toml' -r -F
complete -c pushward -n "__fish_pushward_needs_command" -s h -l help -d 'Print help'
complete -c pushward -n "__fish_pushward_needs_command" -s V -l version -d 'Print version'
complete -c pushward -n "__fish_pushward_needs_command" -f -a "run" -d 'Serve clients (the default)'
complete -c pushward -n "__fish_pushward_needs_command" -f -a "check" -d 'Say what is wrong with the configuration, the certificates and the servers behind'
complete -c pushward -n "__fish_pushward_needs_command" -f -a "setup" -d 'Write a configuration for one domain: asks, or takes options'
complete -c pushward -n "__fish_pushward_needs_command" -f -a "print" -d 'Print what goes with the program: manual page, completions, systemd units, the configuration\'s defaults'
complete -c pushward -n "__fish_pushward_needs_command" -f -a "demo" -d 'Show Pushward at work: a server, a push service and a client in this process'
complete -c pushward -n "__fish_pushward_needs_command" -f -a "status" -d 'Show the state of the running daemon'
complete -c pushward -n "__fish_pushward_needs_command" -f -a "sessions" -d 'List the sessions'
complete -c pushward -n "__fish_pushward_needs_command" -f -a "reload" -d 'Take the configuration anew: certificates, hosts, limits, push rules, log level; sessions stay'
complete -c pushward -n "__fish_pushward_needs_command" -f -a "push" -d 'Look after push registrations'
complete -c pushward -n "__fish_pushward_needs_command" -f -a "release" -d 'Deliver what is set aside for an account again'
complete -c pushward -n "__fish_pushward_needs_command" -f -a "forget" -d 'Delete all that is kept about an account: registrations, what waits for its devices, and the sessions held for them'
complete -c pushward -n "__fish_pushward_needs_command" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c pushward -n "__fish_pushward_using_subcommand run" -s c -l config -d 'The configuration file; where there is none of that name, /etc/pushward/config.toml' -r -F
complete -c pushward -n "__fish_pushward_using_subcommand run" -s h -l help -d 'Print help'
complete -c pushward -n "__fish_pushward_using_subcommand check" -s c -l config -d 'The configuration file; where there is none of that name, /etc/pushward/config.toml' -r -F
complete -c pushward -n "__fish_pushward_using_subcommand check" -s h -l help -d 'Print help'
complete -c pushward -n "__fish_pushward_using_subcommand setup" -l domain -d 'The domain: what stands behind the @ of the users\' addresses' -r
complete -c pushward -n "__fish_pushward_using_subcommand setup" -l upstream -d 'The server\'s address and port for client connections; by default 127.0.0.1:5322' -r
complete -c pushward -n "__fish_pushward_using_subcommand setup" -l upstream-tls -d 'When TLS starts on the connection to it; by default what works, without TLS first' -r
complete -c pushward -n "__fish_pushward_using_subcommand setup" -l upstream-ca -d 'The authority that issued its certificate, PEM; by default the system\'s' -r -F
complete -c pushward -n "__fish_pushward_using_subcommand setup" -l certificate -d 'The domain\'s certificate chain, PEM; by default it is looked for' -r -F
complete -c pushward -n "__fish_pushward_using_subcommand setup" -l key -d 'The certificate\'s private key, PEM' -r -F
complete -c pushward -n "__fish_pushward_using_subcommand setup" -l listen -d 'Where clients connect with STARTTLS, any number of times; by default port 5222 of every address' -r
complete -c pushward -n "__fish_pushward_using_subcommand setup" -l listen-tls -d 'Where clients connect with TLS at once, any number of times; by default port 5223 of every address' -r
complete -c pushward -n "__fish_pushward_using_subcommand setup" -l state -d 'The directory of the database; by default state, or /var/lib/pushward for /etc/pushward/config.toml' -r -F
complete -c pushward -n "__fish_pushward_using_subcommand setup" -l output -d 'Where the configuration is written; by default the file that --config names' -r -F
complete -c pushward -n "__fish_pushward_using_subcommand setup" -s c -l config -d 'The configuration file; where there is none of that name, /etc/pushward/config.toml' -r -F
complete -c pushward -n "__fish_pushward_using_subcommand setup" -l force -d 'Replace a configuration that is there'
complete -c pushward -n "__fish_pushward_using_subcommand setup" -s y -l yes -d 'Ask nothing'
complete -c pushward -n "__fish_pushward_using_subcommand setup" -s h -l help -d 'Print help'
complete -c pushward -n "__fish_pushward_using_subcommand print" -s c -l config -d 'The configuration file; where there is none of that name, /etc/pushward/config.toml' -r -F
complete -c pushward -n "__fish_pushward_using_subcommand print" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c pushward -n "__fish_pushward_using_subcommand demo" -s c -l config -d 'The configuration file; where there is none of that name, /etc/pushward/config.toml' -r -F
complete -c pushward -n "__fish_pushward_using_subcommand demo" -l serve -d 'Keep the server running for clients of your own'
complete -c pushward -n "__fish_pushward_using_subcommand demo" -s v -l verbose -d 'Show every stanza'
complete -c pushward -n "__fish_pushward_using_subcommand demo" -s h -l help -d 'Print help'
complete -c pushward -n "__fish_pushward_using_subcommand status" -s i -l interval -d 'How often, such as 500ms or 1m' -r
complete -c pushward -n "__fish_pushward_using_subcommand status" -s c -l config -d 'The configuration file; where there is none of that name, /etc/pushward/config.toml' -r -F
complete -c pushward -n "__fish_pushward_using_subcommand status" -l json -d 'Print JSON, one object a line'
complete -c pushward -n "__fish_pushward_using_subcommand status" -s w -l watch -d 'Keep showing it; q ends. Where there is no terminal, print it anew each time'
complete -c pushward -n "__fish_pushward_using_subcommand status" -s h -l help -d 'Print help'
complete -c pushward -n "__fish_pushward_using_subcommand sessions" -s i -l interval -d 'How often, such as 500ms or 1m' -r
complete -c pushward -n "__fish_pushward_using_subcommand sessions" -s c -l config -d 'The configuration file; where there is none of that name, /etc/pushward/config.toml' -r -F
complete -c pushward -n "__fish_pushward_using_subcommand sessions" -l json -d 'Print JSON, one object a line'
complete -c pushward -n "__fish_pushward_using_subcommand sessions" -s w -l watch -d 'Keep showing it; q ends. Where there is no terminal, print it anew each time'
complete -c pushward -n "__fish_pushward_using_subcommand sessions" -s h -l help -d 'Print help'
complete -c pushward -n "__fish_pushward_using_subcommand reload" -s c -l config -d 'The configuration file; where there is none of that name, /etc/pushward/config.toml' -r -F
complete -c pushward -n "__fish_pushward_using_subcommand reload" -l json -d 'Print JSON, one object a line'
complete -c pushward -n "__fish_pushward_using_subcommand reload" -s h -l help -d 'Print help'
complete -c pushward -n "__fish_pushward_using_subcommand push; and not __fish_seen_subcommand_from list ping remove help" -s c -l config -d 'The configuration file; where there is none of that name, /etc/pushward/config.toml' -r -F
complete -c pushward -n "__fish_pushward_using_subcommand push; and not __fish_seen_subcommand_from list ping remove help" -s h -l help -d 'Print help'
complete -c pushward -n "__fish_pushward_using_subcommand push; and not __fish_seen_subcommand_from list ping remove help" -f -a "list" -d 'List the registrations, with nodes shortened'
complete -c pushward -n "__fish_pushward_using_subcommand push; and not __fish_seen_subcommand_from list ping remove help" -f -a "ping" -d 'Send a notification, to see whether it arrives'
complete -c pushward -n "__fish_pushward_using_subcommand push; and not __fish_seen_subcommand_from list ping remove help" -f -a "remove" -d 'Remove registrations: the device is not notified until it asks again'
complete -c pushward -n "__fish_pushward_using_subcommand push; and not __fish_seen_subcommand_from list ping remove help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c pushward -n "__fish_pushward_using_subcommand push; and __fish_seen_subcommand_from list" -s c -l config -d 'The configuration file; where there is none of that name, /etc/pushward/config.toml' -r -F
complete -c pushward -n "__fish_pushward_using_subcommand push; and __fish_seen_subcommand_from list" -l json -d 'Print JSON, one object a line'
complete -c pushward -n "__fish_pushward_using_subcommand push; and __fish_seen_subcommand_from list" -s h -l help -d 'Print help'
complete -c pushward -n "__fish_pushward_using_subcommand push; and __fish_seen_subcommand_from ping" -s c -l config -d 'The configuration file; where there is none of that name, /etc/pushward/config.toml' -r -F
complete -c pushward -n "__fish_pushward_using_subcommand push; and __fish_seen_subcommand_from ping" -l json -d 'Print JSON, one object a line'
complete -c pushward -n "__fish_pushward_using_subcommand push; and __fish_seen_subcommand_from ping" -s h -l help -d 'Print help'
complete -c pushward -n "__fish_pushward_using_subcommand push; and __fish_seen_subcommand_from remove" -s c -l config -d 'The configuration file; where there is none of that name, /etc/pushward/config.toml' -r -F
complete -c pushward -n "__fish_pushward_using_subcommand push; and __fish_seen_subcommand_from remove" -l json -d 'Print JSON, one object a line'
complete -c pushward -n "__fish_pushward_using_subcommand push; and __fish_seen_subcommand_from remove" -s h -l help -d 'Print help'
complete -c pushward -n "__fish_pushward_using_subcommand push; and __fish_seen_subcommand_from help" -f -a "list" -d 'List the registrations, with nodes shortened'
complete -c pushward -n "__fish_pushward_using_subcommand push; and __fish_seen_subcommand_from help" -f -a "ping" -d 'Send a notification, to see whether it arrives'
complete -c pushward -n "__fish_pushward_using_subcommand push; and __fish_seen_subcommand_from help" -f -a "remove" -d 'Remove registrations: the device is not notified until it asks again'
complete -c pushward -n "__fish_pushward_using_subcommand push; and __fish_seen_subcommand_from help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c pushward -n "__fish_pushward_using_subcommand release" -s c -l config -d 'The configuration file; where there is none of that name, /etc/pushward/config.toml' -r -F
complete -c pushward -n "__fish_pushward_using_subcommand release" -l json -d 'Print JSON, one object a line'
complete -c pushward -n "__fish_pushward_using_subcommand release" -s h -l help -d 'Print help'
complete -c pushward -n "__fish_pushward_using_subcommand forget" -s c -l config -d 'The configuration file; where there is none of that name, /etc/pushward/config.toml' -r -F
complete -c pushward -n "__fish_pushward_using_subcommand forget" -l json -d 'Print JSON, one object a line'
complete -c pushward -n "__fish_pushward_using_subcommand forget" -s h -l help -d 'Print help'
complete -c pushward -n "__fish_pushward_using_subcommand help; and not __fish_seen_subcommand_from run check setup print demo status sessions reload push release forget help" -f -a "run" -d 'Serve clients (the default)'
complete -c pushward -n "__fish_pushward_using_subcommand help; and not __fish_seen_subcommand_from run check setup print demo status sessions reload push release forget help" -f -a "check" -d 'Say what is wrong with the configuration, the certificates and the servers behind'
complete -c pushward -n "__fish_pushward_using_subcommand help; and not __fish_seen_subcommand_from run check setup print demo status sessions reload push release forget help" -f -a "setup" -d 'Write a configuration for one domain: asks, or takes options'
complete -c pushward -n "__fish_pushward_using_subcommand help; and not __fish_seen_subcommand_from run check setup print demo status sessions reload push release forget help" -f -a "print" -d 'Print what goes with the program: manual page, completions, systemd units, the configuration\'s defaults'
complete -c pushward -n "__fish_pushward_using_subcommand help; and not __fish_seen_subcommand_from run check setup print demo status sessions reload push release forget help" -f -a "demo" -d 'Show Pushward at work: a server, a push service and a client in this process'
complete -c pushward -n "__fish_pushward_using_subcommand help; and not __fish_seen_subcommand_from run check setup print demo status sessions reload push release forget help" -f -a "status" -d 'Show the state of the running daemon'
complete -c pushward -n "__fish_pushward_using_subcommand help; and not __fish_seen_subcommand_from run check setup print demo status sessions reload push release forget help" -f -a "sessions" -d 'List the sessions'
complete -c pushward -n "__fish_pushward_using_subcommand help; and not __fish_seen_subcommand_from run check setup print demo status sessions reload push release forget help" -f -a "reload" -d 'Take the configuration anew: certificates, hosts, limits, push rules, log level; sessions stay'
complete -c pushward -n "__fish_pushward_using_subcommand help; and not __fish_seen_subcommand_from run check setup print demo status sessions reload push release forget help" -f -a "push" -d 'Look after push registrations'
complete -c pushward -n "__fish_pushward_using_subcommand help; and not __fish_seen_subcommand_from run check setup print demo status sessions reload push release forget help" -f -a "release" -d 'Deliver what is set aside for an account again'
complete -c pushward -n "__fish_pushward_using_subcommand help; and not __fish_seen_subcommand_from run check setup print demo status sessions reload push release forget help" -f -a "forget" -d 'Delete all that is kept about an account: registrations, what waits for its devices, and the sessions held for them'
complete -c pushward -n "__fish_pushward_using_subcommand help; and not __fish_seen_subcommand_from run check setup print demo status sessions reload push release forget help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c pushward -n "__fish_pushward_using_subcommand help; and __fish_seen_subcommand_from push" -f -a "list" -d 'List the registrations, with nodes shortened'
complete -c pushward -n "__fish_pushward_using_subcommand help; and __fish_seen_subcommand_from push" -f -a "ping" -d 'Send a notification, to see whether it arrives'
complete -c pushward -n "__fish_pushward_using_subcommand help; and __fish_seen_subcommand_from push" -f -a "remove" -d 'Remove registrations: the device is not notified until it asks again'

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

complete -c pushward -n "__fish_pushward_needs_command" -s c -l config -d 'Configuration file; if the default does not exist, /etc/pushward/config.toml is used' -r -F
complete -c pushward -n "__fish_pushward_needs_command" -s h -l help -d 'Print help'
complete -c pushward -n "__fish_pushward_needs_command" -s V -l version -d 'Print version'
complete -c pushward -n "__fish_pushward_needs_command" -f -a "run" -d 'Run the daemon (the default)'
complete -c pushward -n "__fish_pushward_needs_command" -f -a "check" -d 'Check the configuration, certificates, upstream servers and push services, and report problems with their remedy'
complete -c pushward -n "__fish_pushward_needs_command" -f -a "setup" -d 'Write a configuration for one domain, from options or interactively'
complete -c pushward -n "__fish_pushward_needs_command" -f -a "print" -d 'Print the manual page, shell completions, systemd units or the default configuration'
complete -c pushward -n "__fish_pushward_needs_command" -f -a "demo" -d 'Demonstrate a push notification, with a built-in XMPP server, push service and clients'
complete -c pushward -n "__fish_pushward_needs_command" -f -a "status" -d 'Show the status of the running daemon'
complete -c pushward -n "__fish_pushward_needs_command" -f -a "sessions" -d 'List the sessions'
complete -c pushward -n "__fish_pushward_needs_command" -f -a "reload" -d 'Reload the configuration: certificates, hosts, limits, push rules, log level. Sessions stay connected'
complete -c pushward -n "__fish_pushward_needs_command" -f -a "upgrade" -d 'Replace the running daemon by the program that is installed now. Dark sessions go on; connected clients resume'
complete -c pushward -n "__fish_pushward_needs_command" -f -a "stop" -d 'Drain and end the running daemon, also under a service manager that keeps its sessions at a restart'
complete -c pushward -n "__fish_pushward_needs_command" -f -a "push" -d 'Manage push registrations'
complete -c pushward -n "__fish_pushward_needs_command" -f -a "release" -d 'Deliver the stanzas again that were set aside for the devices of an account'
complete -c pushward -n "__fish_pushward_needs_command" -f -a "node" -d 'Show and drain the nodes of the cluster'
complete -c pushward -n "__fish_pushward_needs_command" -f -a "forget" -d 'Delete all stored data of an account: registrations and waiting stanzas. Its dark sessions end'
complete -c pushward -n "__fish_pushward_needs_command" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c pushward -n "__fish_pushward_using_subcommand run" -s c -l config -d 'Configuration file; if the default does not exist, /etc/pushward/config.toml is used' -r -F
complete -c pushward -n "__fish_pushward_using_subcommand run" -s h -l help -d 'Print help'
complete -c pushward -n "__fish_pushward_using_subcommand check" -s c -l config -d 'Configuration file; if the default does not exist, /etc/pushward/config.toml is used' -r -F
complete -c pushward -n "__fish_pushward_using_subcommand check" -s h -l help -d 'Print help'
complete -c pushward -n "__fish_pushward_using_subcommand setup" -l domain -d 'Domain: the part of the users\' addresses after the @' -r
complete -c pushward -n "__fish_pushward_using_subcommand setup" -l upstream -d 'Address and port of the XMPP server for client connections; default: 127.0.0.1:5322' -r
complete -c pushward -n "__fish_pushward_using_subcommand setup" -l upstream-tls -d 'TLS to the server: off, starttls or direct; default: the first that works, in this order' -r
complete -c pushward -n "__fish_pushward_using_subcommand setup" -l upstream-ca -d 'Certificate of the authority that issued the server\'s certificate, PEM; default: the system\'s authorities' -r -F
complete -c pushward -n "__fish_pushward_using_subcommand setup" -l certificate -d 'Certificate chain of the domain, PEM; default: searched in the usual places' -r -F
complete -c pushward -n "__fish_pushward_using_subcommand setup" -l key -d 'Private key of the certificate, PEM' -r -F
complete -c pushward -n "__fish_pushward_using_subcommand setup" -l listen -d 'Address and port for clients with STARTTLS, repeatable; default: port 5222 on all addresses' -r
complete -c pushward -n "__fish_pushward_using_subcommand setup" -l listen-tls -d 'Address and port for clients with direct TLS, repeatable; default: port 5223 on all addresses' -r
complete -c pushward -n "__fish_pushward_using_subcommand setup" -l state -d 'Directory of the database; default: state, or /var/lib/pushward for /etc/pushward/config.toml' -r -F
complete -c pushward -n "__fish_pushward_using_subcommand setup" -l output -d 'Configuration file to write; default: the file that --config names' -r -F
complete -c pushward -n "__fish_pushward_using_subcommand setup" -s c -l config -d 'Configuration file; if the default does not exist, /etc/pushward/config.toml is used' -r -F
complete -c pushward -n "__fish_pushward_using_subcommand setup" -l force -d 'Replace an existing configuration'
complete -c pushward -n "__fish_pushward_using_subcommand setup" -s y -l yes -d 'Do not ask; use the options and defaults'
complete -c pushward -n "__fish_pushward_using_subcommand setup" -s h -l help -d 'Print help'
complete -c pushward -n "__fish_pushward_using_subcommand print" -s c -l config -d 'Configuration file; if the default does not exist, /etc/pushward/config.toml is used' -r -F
complete -c pushward -n "__fish_pushward_using_subcommand print" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c pushward -n "__fish_pushward_using_subcommand demo" -s c -l config -d 'Configuration file; if the default does not exist, /etc/pushward/config.toml is used' -r -F
complete -c pushward -n "__fish_pushward_using_subcommand demo" -l serve -d 'Keep everything running after the story, for XMPP clients of your own'
complete -c pushward -n "__fish_pushward_using_subcommand demo" -s v -l verbose -d 'Show every stanza'
complete -c pushward -n "__fish_pushward_using_subcommand demo" -s h -l help -d 'Print help'
complete -c pushward -n "__fish_pushward_using_subcommand status" -l node -d 'Only this node of the cluster; without it, all nodes' -r
complete -c pushward -n "__fish_pushward_using_subcommand status" -s i -l interval -d 'Time between refreshes, such as 500ms or 1m' -r
complete -c pushward -n "__fish_pushward_using_subcommand status" -s c -l config -d 'Configuration file; if the default does not exist, /etc/pushward/config.toml is used' -r -F
complete -c pushward -n "__fish_pushward_using_subcommand status" -l json -d 'Print JSON, one object per line'
complete -c pushward -n "__fish_pushward_using_subcommand status" -s w -l watch -d 'Refresh until q is pressed; without a terminal, print again at each interval. In a cluster, only the node that is asked'
complete -c pushward -n "__fish_pushward_using_subcommand status" -s h -l help -d 'Print help'
complete -c pushward -n "__fish_pushward_using_subcommand sessions" -l node -d 'Only this node of the cluster; without it, all nodes' -r
complete -c pushward -n "__fish_pushward_using_subcommand sessions" -s i -l interval -d 'Time between refreshes, such as 500ms or 1m' -r
complete -c pushward -n "__fish_pushward_using_subcommand sessions" -s c -l config -d 'Configuration file; if the default does not exist, /etc/pushward/config.toml is used' -r -F
complete -c pushward -n "__fish_pushward_using_subcommand sessions" -l json -d 'Print JSON, one object per line'
complete -c pushward -n "__fish_pushward_using_subcommand sessions" -s w -l watch -d 'Refresh until q is pressed; without a terminal, print again at each interval. In a cluster, only the node that is asked'
complete -c pushward -n "__fish_pushward_using_subcommand sessions" -s h -l help -d 'Print help'
complete -c pushward -n "__fish_pushward_using_subcommand reload" -s c -l config -d 'Configuration file; if the default does not exist, /etc/pushward/config.toml is used' -r -F
complete -c pushward -n "__fish_pushward_using_subcommand reload" -l json -d 'Print JSON, one object per line'
complete -c pushward -n "__fish_pushward_using_subcommand reload" -s h -l help -d 'Print help'
complete -c pushward -n "__fish_pushward_using_subcommand upgrade" -s c -l config -d 'Configuration file; if the default does not exist, /etc/pushward/config.toml is used' -r -F
complete -c pushward -n "__fish_pushward_using_subcommand upgrade" -l json -d 'Print JSON, one object per line'
complete -c pushward -n "__fish_pushward_using_subcommand upgrade" -s h -l help -d 'Print help'
complete -c pushward -n "__fish_pushward_using_subcommand stop" -s c -l config -d 'Configuration file; if the default does not exist, /etc/pushward/config.toml is used' -r -F
complete -c pushward -n "__fish_pushward_using_subcommand stop" -l json -d 'Print JSON, one object per line'
complete -c pushward -n "__fish_pushward_using_subcommand stop" -s h -l help -d 'Print help'
complete -c pushward -n "__fish_pushward_using_subcommand push; and not __fish_seen_subcommand_from list ping remove help" -s c -l config -d 'Configuration file; if the default does not exist, /etc/pushward/config.toml is used' -r -F
complete -c pushward -n "__fish_pushward_using_subcommand push; and not __fish_seen_subcommand_from list ping remove help" -s h -l help -d 'Print help'
complete -c pushward -n "__fish_pushward_using_subcommand push; and not __fish_seen_subcommand_from list ping remove help" -f -a "list" -d 'List the registrations, with shortened nodes'
complete -c pushward -n "__fish_pushward_using_subcommand push; and not __fish_seen_subcommand_from list ping remove help" -f -a "ping" -d 'Send a test notification and show the answer of the push service'
complete -c pushward -n "__fish_pushward_using_subcommand push; and not __fish_seen_subcommand_from list ping remove help" -f -a "remove" -d 'Remove registrations: the device gets no notifications until it enables push again'
complete -c pushward -n "__fish_pushward_using_subcommand push; and not __fish_seen_subcommand_from list ping remove help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c pushward -n "__fish_pushward_using_subcommand push; and __fish_seen_subcommand_from list" -l node -d 'Only accounts that this node of the cluster owns' -r
complete -c pushward -n "__fish_pushward_using_subcommand push; and __fish_seen_subcommand_from list" -s c -l config -d 'Configuration file; if the default does not exist, /etc/pushward/config.toml is used' -r -F
complete -c pushward -n "__fish_pushward_using_subcommand push; and __fish_seen_subcommand_from list" -l json -d 'Print JSON, one object per line'
complete -c pushward -n "__fish_pushward_using_subcommand push; and __fish_seen_subcommand_from list" -s h -l help -d 'Print help'
complete -c pushward -n "__fish_pushward_using_subcommand push; and __fish_seen_subcommand_from ping" -s c -l config -d 'Configuration file; if the default does not exist, /etc/pushward/config.toml is used' -r -F
complete -c pushward -n "__fish_pushward_using_subcommand push; and __fish_seen_subcommand_from ping" -l json -d 'Print JSON, one object per line'
complete -c pushward -n "__fish_pushward_using_subcommand push; and __fish_seen_subcommand_from ping" -s h -l help -d 'Print help'
complete -c pushward -n "__fish_pushward_using_subcommand push; and __fish_seen_subcommand_from remove" -s c -l config -d 'Configuration file; if the default does not exist, /etc/pushward/config.toml is used' -r -F
complete -c pushward -n "__fish_pushward_using_subcommand push; and __fish_seen_subcommand_from remove" -l json -d 'Print JSON, one object per line'
complete -c pushward -n "__fish_pushward_using_subcommand push; and __fish_seen_subcommand_from remove" -s h -l help -d 'Print help'
complete -c pushward -n "__fish_pushward_using_subcommand push; and __fish_seen_subcommand_from help" -f -a "list" -d 'List the registrations, with shortened nodes'
complete -c pushward -n "__fish_pushward_using_subcommand push; and __fish_seen_subcommand_from help" -f -a "ping" -d 'Send a test notification and show the answer of the push service'
complete -c pushward -n "__fish_pushward_using_subcommand push; and __fish_seen_subcommand_from help" -f -a "remove" -d 'Remove registrations: the device gets no notifications until it enables push again'
complete -c pushward -n "__fish_pushward_using_subcommand push; and __fish_seen_subcommand_from help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c pushward -n "__fish_pushward_using_subcommand release" -s c -l config -d 'Configuration file; if the default does not exist, /etc/pushward/config.toml is used' -r -F
complete -c pushward -n "__fish_pushward_using_subcommand release" -l json -d 'Print JSON, one object per line'
complete -c pushward -n "__fish_pushward_using_subcommand release" -s h -l help -d 'Print help'
complete -c pushward -n "__fish_pushward_using_subcommand node; and not __fish_seen_subcommand_from list drain help" -s c -l config -d 'Configuration file; if the default does not exist, /etc/pushward/config.toml is used' -r -F
complete -c pushward -n "__fish_pushward_using_subcommand node; and not __fish_seen_subcommand_from list drain help" -s h -l help -d 'Print help'
complete -c pushward -n "__fish_pushward_using_subcommand node; and not __fish_seen_subcommand_from list drain help" -f -a "list" -d 'List the nodes: number, address, state, accounts'
complete -c pushward -n "__fish_pushward_using_subcommand node; and not __fish_seen_subcommand_from list drain help" -f -a "drain" -d 'Move the sessions of a node to the others. It takes no more clients, and runs until it is stopped'
complete -c pushward -n "__fish_pushward_using_subcommand node; and not __fish_seen_subcommand_from list drain help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c pushward -n "__fish_pushward_using_subcommand node; and __fish_seen_subcommand_from list" -s c -l config -d 'Configuration file; if the default does not exist, /etc/pushward/config.toml is used' -r -F
complete -c pushward -n "__fish_pushward_using_subcommand node; and __fish_seen_subcommand_from list" -l json -d 'Print JSON, one object per line'
complete -c pushward -n "__fish_pushward_using_subcommand node; and __fish_seen_subcommand_from list" -s h -l help -d 'Print help'
complete -c pushward -n "__fish_pushward_using_subcommand node; and __fish_seen_subcommand_from drain" -s c -l config -d 'Configuration file; if the default does not exist, /etc/pushward/config.toml is used' -r -F
complete -c pushward -n "__fish_pushward_using_subcommand node; and __fish_seen_subcommand_from drain" -l json -d 'Print JSON, one object per line'
complete -c pushward -n "__fish_pushward_using_subcommand node; and __fish_seen_subcommand_from drain" -s h -l help -d 'Print help'
complete -c pushward -n "__fish_pushward_using_subcommand node; and __fish_seen_subcommand_from help" -f -a "list" -d 'List the nodes: number, address, state, accounts'
complete -c pushward -n "__fish_pushward_using_subcommand node; and __fish_seen_subcommand_from help" -f -a "drain" -d 'Move the sessions of a node to the others. It takes no more clients, and runs until it is stopped'
complete -c pushward -n "__fish_pushward_using_subcommand node; and __fish_seen_subcommand_from help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c pushward -n "__fish_pushward_using_subcommand forget" -s c -l config -d 'Configuration file; if the default does not exist, /etc/pushward/config.toml is used' -r -F
complete -c pushward -n "__fish_pushward_using_subcommand forget" -l json -d 'Print JSON, one object per line'
complete -c pushward -n "__fish_pushward_using_subcommand forget" -s h -l help -d 'Print help'
complete -c pushward -n "__fish_pushward_using_subcommand help; and not __fish_seen_subcommand_from run check setup print demo status sessions reload upgrade stop push release node forget help" -f -a "run" -d 'Run the daemon (the default)'
complete -c pushward -n "__fish_pushward_using_subcommand help; and not __fish_seen_subcommand_from run check setup print demo status sessions reload upgrade stop push release node forget help" -f -a "check" -d 'Check the configuration, certificates, upstream servers and push services, and report problems with their remedy'
complete -c pushward -n "__fish_pushward_using_subcommand help; and not __fish_seen_subcommand_from run check setup print demo status sessions reload upgrade stop push release node forget help" -f -a "setup" -d 'Write a configuration for one domain, from options or interactively'
complete -c pushward -n "__fish_pushward_using_subcommand help; and not __fish_seen_subcommand_from run check setup print demo status sessions reload upgrade stop push release node forget help" -f -a "print" -d 'Print the manual page, shell completions, systemd units or the default configuration'
complete -c pushward -n "__fish_pushward_using_subcommand help; and not __fish_seen_subcommand_from run check setup print demo status sessions reload upgrade stop push release node forget help" -f -a "demo" -d 'Demonstrate a push notification, with a built-in XMPP server, push service and clients'
complete -c pushward -n "__fish_pushward_using_subcommand help; and not __fish_seen_subcommand_from run check setup print demo status sessions reload upgrade stop push release node forget help" -f -a "status" -d 'Show the status of the running daemon'
complete -c pushward -n "__fish_pushward_using_subcommand help; and not __fish_seen_subcommand_from run check setup print demo status sessions reload upgrade stop push release node forget help" -f -a "sessions" -d 'List the sessions'
complete -c pushward -n "__fish_pushward_using_subcommand help; and not __fish_seen_subcommand_from run check setup print demo status sessions reload upgrade stop push release node forget help" -f -a "reload" -d 'Reload the configuration: certificates, hosts, limits, push rules, log level. Sessions stay connected'
complete -c pushward -n "__fish_pushward_using_subcommand help; and not __fish_seen_subcommand_from run check setup print demo status sessions reload upgrade stop push release node forget help" -f -a "upgrade" -d 'Replace the running daemon by the program that is installed now. Dark sessions go on; connected clients resume'
complete -c pushward -n "__fish_pushward_using_subcommand help; and not __fish_seen_subcommand_from run check setup print demo status sessions reload upgrade stop push release node forget help" -f -a "stop" -d 'Drain and end the running daemon, also under a service manager that keeps its sessions at a restart'
complete -c pushward -n "__fish_pushward_using_subcommand help; and not __fish_seen_subcommand_from run check setup print demo status sessions reload upgrade stop push release node forget help" -f -a "push" -d 'Manage push registrations'
complete -c pushward -n "__fish_pushward_using_subcommand help; and not __fish_seen_subcommand_from run check setup print demo status sessions reload upgrade stop push release node forget help" -f -a "release" -d 'Deliver the stanzas again that were set aside for the devices of an account'
complete -c pushward -n "__fish_pushward_using_subcommand help; and not __fish_seen_subcommand_from run check setup print demo status sessions reload upgrade stop push release node forget help" -f -a "node" -d 'Show and drain the nodes of the cluster'
complete -c pushward -n "__fish_pushward_using_subcommand help; and not __fish_seen_subcommand_from run check setup print demo status sessions reload upgrade stop push release node forget help" -f -a "forget" -d 'Delete all stored data of an account: registrations and waiting stanzas. Its dark sessions end'
complete -c pushward -n "__fish_pushward_using_subcommand help; and not __fish_seen_subcommand_from run check setup print demo status sessions reload upgrade stop push release node forget help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c pushward -n "__fish_pushward_using_subcommand help; and __fish_seen_subcommand_from push" -f -a "list" -d 'List the registrations, with shortened nodes'
complete -c pushward -n "__fish_pushward_using_subcommand help; and __fish_seen_subcommand_from push" -f -a "ping" -d 'Send a test notification and show the answer of the push service'
complete -c pushward -n "__fish_pushward_using_subcommand help; and __fish_seen_subcommand_from push" -f -a "remove" -d 'Remove registrations: the device gets no notifications until it enables push again'
complete -c pushward -n "__fish_pushward_using_subcommand help; and __fish_seen_subcommand_from node" -f -a "list" -d 'List the nodes: number, address, state, accounts'
complete -c pushward -n "__fish_pushward_using_subcommand help; and __fish_seen_subcommand_from node" -f -a "drain" -d 'Move the sessions of a node to the others. It takes no more clients, and runs until it is stopped'

//! The check of this node's certificate, and of the other nodes.

use std::path::Path;

use super::report::Report;
use crate::cluster::directory::NodeAddress;
use crate::cluster::node_tls::NodeTls;
use crate::cluster::request;
use crate::config::{ClusterSettings, Config, Problem};
use crate::exit;
use crate::relay::snapshot::load_node_tls;
use crate::store::NodeRecord;

/// Checks the certificate of this node, if it is one of a cluster, and connects to the others that are running.
pub(super) async fn cluster(report: &mut Report, path: &Path, config: &Config, running: Vec<NodeRecord>) {
    let Some(cluster) = &config.cluster else { return };
    let problem = |key: &str, what: String, remedy: &str| Problem {
        file: path.to_owned(),
        line: 0,
        key: format!("[cluster] {key}"),
        what,
        remedy: remedy.to_owned(),
    };
    let tls = match load_node_tls(config) {
        Ok(Some(tls)) => tls,
        Ok(None) => return,
        Err(error) => {
            let remedy = "correct the files of [cluster]";
            return report.problem(&problem("certificate", error.to_string(), remedy), exit::CONFIG);
        }
    };
    let file = cluster.certificate.display();
    match tls.judge_own() {
        Ok(()) => {
            report.fine(format_args!("cluster: certificate {file} is of an authority in {}", cluster.ca.display()))
        }
        Err(error) => {
            let remedy = "issue a certificate that is valid now, for clients and servers, by an authority in ca";
            report.problem(&problem("certificate", format!("{file}: {error}"), remedy), exit::CONFIG);
        }
    }
    for record in running {
        if record.id == cluster.node.get() {
            same_number(report, cluster, &record, &problem);
        } else if let Some(node) = NodeAddress::of(record) {
            other(report, &tls, &node, &problem).await;
        }
    }
}

/// This node may be running already. It is another one if it has another address.
fn same_number(
    report: &mut Report,
    cluster: &ClusterSettings,
    record: &NodeRecord,
    problem: &impl Fn(&str, String, &str) -> Problem,
) {
    if record.address != cluster.advertise.to_string() {
        let what = format!("a node with this number is running at {}", record.address);
        report.problem(&problem("node", what, "give each node a number of its own"), exit::CONFIG);
    }
}

async fn other(
    report: &mut Report,
    tls: &NodeTls,
    node: &NodeAddress,
    problem: &impl Fn(&str, String, &str) -> Problem,
) {
    match request::probe(tls, node).await {
        Ok(()) => report.fine(format_args!("cluster: node {} answers at {}", node.node, node.address)),
        Err(error) => {
            let what = format!("node {} at {}: {error}", node.node, node.address);
            let remedy =
                "open the port of [cluster] listen between the nodes, and use one authority for all certificates";
            report.problem(&problem("ca", what, remedy), exit::UNAVAILABLE);
        }
    }
}

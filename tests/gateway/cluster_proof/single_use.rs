//! What may work once, shown at every node at the same moment: a code and an assertion.

use std::sync::Arc;

use futures_util::future::join_all;
use reqwest::Method;

use super::balancer::{Outcome, PUBLIC};
use super::cluster::Cluster;
use super::visitor::{Site, Unavailable, Visitor, token_request};
use crate::harness::Client;
use crate::harness::login::Form;
use crate::harness::program::assertion_form;

/// A code that nobody has redeemed, and an assertion that nobody has used.
pub(super) struct SingleUse {
    code: Vec<(&'static str, String)>,
    assertion: String,
    /// How often the code and the assertion were taken.
    taken: [usize; 2],
}

impl SingleUse {
    /// Logs a person in up to the code.
    pub(super) async fn prepare(
        site: &Arc<Site>,
        cluster: &Cluster,
        number: u32,
    ) -> Result<Self, Unavailable> {
        let mut person = Visitor::new(site, number);
        let code = person.obtain_code().await?;
        let assertion = cluster.program.assertion(&format!("{PUBLIC}/a"), number.into());
        Ok(Self { code: person.code_form(&code), assertion, taken: [0, 0] })
    }

    /// Shows both at all nodes at once, twice at each. Of all the times, one may succeed.
    pub(super) async fn use_everywhere(&mut self, site: &Site, nodes: usize) {
        let codes = join_all((0..2 * nodes).map(|at| self.redeem(site, at % nodes)));
        let assertions = join_all((0..2 * nodes).map(|at| self.assert(site, at % nodes)));
        let (codes, assertions) = tokio::join!(codes, assertions);
        for (kind, taken) in [codes, assertions].into_iter().enumerate() {
            let what = ["a code", "an assertion"][kind];
            let taken: Vec<_> = (0..taken.len()).filter(|at| taken[*at]).map(|at| at % nodes).collect();
            let before = self.taken[kind];
            self.taken[kind] += taken.len();
            if self.taken[kind] > 1 {
                let text = format!("{what} was taken by the nodes {taken:?}, and {before} times before");
                site.report.violation(text);
            }
        }
    }

    /// Counts how often each was taken.
    pub(super) fn conclude(&self, site: &Site) {
        let [codes, assertions] = self.taken;
        site.report
            .count(format!("a code shown everywhere at once, in trouble and after it: taken {codes} times"));
        site.report.count(format!("an assertion, the same: taken {assertions} times"));
    }

    async fn redeem(&self, site: &Site, at: usize) -> bool {
        let outcome = site.balancer.send_to(at, |client| token_request(client, &self.code)).await;
        matches!(outcome, Outcome::Answered(answer) if answer.status == 200)
    }

    async fn assert(&self, site: &Site, at: usize) -> bool {
        let form = assertion_form(&self.assertion);
        let request = |client: &Client| client.request(Method::POST, "/a/token").form_of(&form);
        let outcome = site.balancer.send_to(at, request).await;
        matches!(outcome, Outcome::Answered(answer) if answer.status == 200)
    }
}

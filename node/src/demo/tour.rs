//! The tour: its stops in their order, and whether each came out as it must.

use std::fmt::Debug;

use jingwei_registry::fault::{Blame, Fault};

use super::federation::Federation;
use super::screen::Screen;
use super::{liar, outage, proof, publishing, questions};

/// A tour under way.
pub struct Tour<'a> {
    /// What is shown.
    pub federation: &'a mut Federation,
    /// Where it is shown.
    pub screen: &'a Screen,
    checks: usize,
    failures: usize,
}

impl<'a> Tour<'a> {
    /// Begins a tour.
    pub fn new(federation: &'a mut Federation, screen: &'a Screen) -> Tour<'a> {
        Tour {
            federation,
            screen,
            checks: 0,
            failures: 0,
        }
    }

    /// Gives it.
    ///
    /// # Errors
    /// If anything did not come out as it must.
    pub async fn give(mut self) -> Result<(), Fault> {
        let mut result = self.stops().await;
        if !self.federation.registry.is_running() {
            // What follows the tour, publishing above all, needs the registry.
            let started = self.federation.registry.start_again().await;
            result = result.and(started);
            self.screen.gap();
            self.screen
                .say("The registry is served again, where it was.");
        }
        if let Err(fault) = &result {
            self.failures += 1;
            self.screen.broke_off(fault);
        }
        self.screen.gap();
        verdict(self.checks, self.failures).map(|good| self.screen.say(&good))
    }

    async fn stops(&mut self) -> Result<(), Fault> {
        publishing::stop(self).await?;
        let before = questions::vertical(self).await?;
        questions::horizontal(self).await?;
        let again = outage::stop(self, &before).await?;
        proof::stop(self, &again)?;
        liar::stop(self).await
    }

    /// Checks that something is as it must be, and counts it.
    pub fn check<T: PartialEq + Debug>(&mut self, what: &str, found: &T, expected: &T) {
        self.checks += 1;
        if !self.screen.check(what, found, expected) {
            self.failures += 1;
        }
    }
}

/// What the tour comes to: it is good only if nothing at all went wrong.
fn verdict(checks: usize, failures: usize) -> Result<String, Fault> {
    let things = match failures {
        0 => {
            return Ok(format!(
                "All {checks} checks of the tour came out as they must."
            ));
        }
        1 => "1 thing on the tour did".to_owned(),
        more => format!("{more} things on the tour did"),
    };
    Err(
        Fault::new(Blame::Internal, format!("{things} not come out as must be"))
            .advise("each is marked ✗ above, with what was expected and what was found"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_failure_fails_the_tour() {
        assert!(verdict(12, 0).is_ok());
        assert_eq!(verdict(12, 1).unwrap_err().exit_code(), 1);
    }

    #[test]
    fn a_wrong_result_is_found() {
        let screen = Screen::new(true);
        assert!(screen.check("the same", &1, &1));
        assert!(!screen.check("another", &1, &2));
    }
}

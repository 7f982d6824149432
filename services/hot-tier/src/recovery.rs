//! What health says while partitions apply what the log held at the start: questions about them are refused until then.

use service::Health;
use tokio::sync::watch;

/// Under this name the health tells of partitions that recover.
const RECOVERING: &str = "recovering";

/// Says how many partitions recover, at once and then while any does. One that stops before that recovers no more, and its
/// reason stays.
pub(crate) fn follow(recovered: Vec<watch::Receiver<bool>>, health: Health) -> impl Future<Output = ()> + Send {
    tell(&recovered, &health);
    async move {
        for partition in &recovered {
            if partition.clone().wait_for(|recovered| *recovered).await.is_err() {
                return;
            }
            tell(&recovered, &health);
        }
    }
}

fn tell(recovered: &[watch::Receiver<bool>], health: &Health) {
    let recovering = recovered.iter().filter(|recovered| !*recovered.borrow()).count();
    if recovering == 0 {
        return health.recover(RECOVERING);
    }
    let all = recovered.len();
    let reason = format!(
        "{recovering} of {all} partitions still apply what the log held at the start; questions about them are refused"
    );
    health.degrade(RECOVERING, reason);
}

#[cfg(test)]
mod tests {
    use service::HealthStatus;

    use super::*;

    /// Goal: health is degraded from the start until the last partition has recovered, whichever comes first, and stays so
    /// where one never does.
    #[tokio::test]
    async fn health_follows_the_partitions() {
        for lost in [false, true] {
            let (one, first) = watch::channel(false);
            let (two, second) = watch::channel(false);
            let health = Health::starting("hot-tier", "1");
            let following = follow(vec![first, second], health.clone());
            health.set_serving();
            let degraded = |recovering: &str| match health.status() {
                HealthStatus::Degraded { reasons } => reasons.len() == 1 && reasons[0].starts_with(recovering),
                _ => false,
            };
            assert!(degraded("2 of 2 partitions"), "{:?}", health.status());
            let following = tokio::spawn(following);
            two.send_replace(true);
            if lost {
                drop(one);
                following.await.unwrap();
                assert!(matches!(health.status(), HealthStatus::Degraded { .. }));
            } else {
                one.send_replace(true);
                following.await.unwrap();
                assert_eq!(health.status(), HealthStatus::Healthy);
            }
        }
    }
}

//! How the processor time of a message depends on the rate: statements and frames are shared by the messages that wait
//! for them, so a message costs less where there are more.

use serde::Serialize;

use super::costs::{Costs, Server};

/// The least factor between two rates that count as different. What two runs at about the same rate differ by is
/// noise.
const APART: f64 = 3.0;
/// The values that are tried for [`Curve::half`], in messages a second: the lowest, the factor between two, and how
/// many.
const HALVES: (f64, f64, i32) = (10.0, 1.25, 40);

/// The processor time of a message by the rate. At `rate` it is `shared + alone * half / (half + rate)`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Curve {
    /// Microseconds that a message takes at any rate.
    pub shared: Costs,
    /// Microseconds that it takes besides where nothing is shared with other messages.
    pub alone: Costs,
    /// Messages a second at which half of `alone` is left.
    pub half: f64,
}

impl Curve {
    /// Returns the microseconds of a message where there are `rate` messages a second.
    pub fn at(&self, rate: f64) -> Costs {
        let left = left(self.half, rate);
        Costs::by(|server| self.shared.of(server) + self.alone.of(server) * left)
    }

    /// Returns the curve that comes closest to these points, each a rate and the microseconds of a message. Where the
    /// points do not say it, the curve keeps what `self` has: with one rate it keeps `alone` and `half`, with two it
    /// keeps `half`. It keeps everything without points.
    pub fn through(&self, points: &[(f64, Costs)]) -> Self {
        let candidates = match different(points) {
            0 => return *self,
            1 => return self.lowered(points),
            2 => vec![self.half],
            _ => {
                let (lowest, factor, count) = HALVES;
                (0..count).map(|power| lowest * factor.powi(power)).collect()
            }
        };
        let curves = candidates.into_iter().map(|half| Self::fitted(points, half));
        let closest = curves.min_by(|one, other| one.error(points).total_cmp(&other.error(points)));
        closest.unwrap_or(*self)
    }

    /// Returns this curve with `shared` as the points have it on average.
    fn lowered(&self, points: &[(f64, Costs)]) -> Self {
        let shared = |server| {
            let each = points.iter().map(|(rate, costs)| {
                let rest = self.alone.of(server) * left(self.half, *rate);
                costs.of(server) - rest
            });
            (each.sum::<f64>() / points.len() as f64).max(0.0)
        };
        Self {
            shared: Costs::by(shared),
            ..*self
        }
    }

    fn fitted(points: &[(f64, Costs)], half: f64) -> Self {
        let line = |server| {
            let points = points.iter();
            line(points.map(|(rate, costs)| (left(half, *rate), costs.of(server))))
        };
        Self {
            shared: Costs::by(|server: Server| line(server).0),
            alone: Costs::by(|server: Server| line(server).1),
            half,
        }
    }

    /// Returns the sum of the squares of the relative errors of all servers together.
    fn error(&self, points: &[(f64, Costs)]) -> f64 {
        let errors = points.iter().map(|(rate, costs)| {
            let off = self.at(*rate).total() / costs.total().max(f64::MIN_POSITIVE) - 1.0;
            off * off
        });
        errors.sum()
    }
}

/// Returns the part of `alone` that is left at a rate, from 0 to 1.
fn left(half: f64, rate: f64) -> f64 {
    half / (half + rate)
}

/// Returns the number of rates that are at least [`APART`].
fn different(points: &[(f64, Costs)]) -> usize {
    let mut rates: Vec<f64> = points.iter().map(|(rate, _)| *rate).collect();
    rates.sort_by(f64::total_cmp);
    let (mut count, mut last) = (0, 0.0);
    for rate in rates {
        if count == 0 || rate >= last * APART {
            (count, last) = (count + 1, rate);
        }
    }
    count
}

/// Returns `(a, b)`, both at least 0, such that the relative errors of `a + b * x` are least in squares for these
/// points `(x, y)`.
fn line(points: impl Iterator<Item = (f64, f64)>) -> (f64, f64) {
    // The sums of weight, weight x, weight x², weight y and weight x y.
    let (mut s, mut sx, mut sxx, mut sy, mut sxy) = (0.0, 0.0, 0.0, 0.0, 0.0);
    for (x, y) in points {
        let weight = 1.0 / (y * y).max(1e-6);
        s += weight;
        sx += weight * x;
        sxx += weight * x * x;
        sy += weight * y;
        sxy += weight * x * y;
    }
    let b = (s * sxy - sx * sy) / (s * sxx - sx * sx);
    let a = (sy - b * sx) / s;
    if !a.is_finite() || !b.is_finite() {
        (0.0, 0.0)
    } else if b < 0.0 {
        (sy / s, 0.0)
    } else if a < 0.0 {
        (0.0, sxy / sxx)
    } else {
        (a, b)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn costs(each: f64) -> Costs {
        Costs::by(|server| if server == Server::Others { 0.0 } else { each })
    }

    fn known() -> Curve {
        Curve {
            shared: costs(10.0),
            alone: costs(600.0),
            half: 100.0,
        }
    }

    fn points(rates: &[f64]) -> Vec<(f64, Costs)> {
        rates.iter().map(|rate| (*rate, known().at(*rate))).collect()
    }

    fn is_near(curve: Curve, other: Curve) -> bool {
        [50.0, 500.0, 5000.0, 50_000.0].into_iter().all(|rate| {
            let (one, other) = (curve.at(rate).total(), other.at(rate).total());
            (one / other - 1.0).abs() < 0.05
        })
    }

    #[test]
    fn a_message_costs_less_where_there_are_more() {
        assert_eq!(known().at(0.0), costs(610.0));
        assert_eq!(known().at(100.0), costs(310.0));
        assert!(known().at(1e9).total() < 41.0);
    }

    #[test]
    fn three_rates_say_all_of_a_curve_and_two_all_but_where_sharing_begins() {
        let assumed = Curve {
            half: 300.0,
            ..known()
        };
        assert!(is_near(
            assumed.through(&points(&[100.0, 1000.0, 40_000.0])),
            known()
        ));
        let two = assumed.through(&points(&[100.0, 40_000.0]));
        assert_eq!(two.half, 300.0);
        let off = |rate| (two.at(rate).total() / known().at(rate).total() - 1.0).abs();
        assert!(off(100.0) < 0.001 && off(40_000.0) < 0.001 && off(1000.0) > 0.3);
    }

    #[test]
    fn runs_at_one_rate_move_the_curve_as_a_whole() {
        let dearer = known().at(40_000.0);
        let dearer = Costs::by(|server| dearer.of(server) + 5.0);
        let curve = known().through(&[(40_000.0, dearer), (42_000.0, dearer)]);
        assert_eq!((curve.alone, curve.half), (known().alone, known().half));
        assert!((curve.shared.gateway - 15.0).abs() < 0.1);
        assert_eq!(known().through(&[]), known());
    }

    #[test]
    fn no_part_of_a_curve_is_below_zero() {
        let rising = [(100.0, costs(10.0)), (10_000.0, costs(40.0))];
        let curve = known().through(&rising);
        assert_eq!(curve.alone.total(), 0.0);
        assert!(curve.shared.gateway >= 10.0);
    }
}

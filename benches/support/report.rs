//! Numbers: medians with their spread, percentiles, tables.

/// Of several rounds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

impl Spread {
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Spread {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let at = |share: f64| percentile(&values, share);
        Spread { median: at(0.5), min: at(0.0), max: at(1.0) }
    }

    /// `0.81 (0.77-0.84)`.
    pub(crate) fn show(self, digits: usize) -> String {
        format!("{:.digits$} ({:.digits$}-{:.digits$})", self.median, self.min, self.max)
    }
}

/// Of sorted values; between two of them the lower.
pub(crate) fn percentile(sorted: &[f64], share: f64) -> f64 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "small counts"
    )]
    let at = ((sorted.len().saturating_sub(1)) as f64 * share).floor() as usize;
    sorted.get(at).copied().unwrap_or(f64::NAN)
}

/// Prints columns under their heads.
pub(crate) fn table(heads: &[&str], rows: &[Vec<String>]) {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(String::len);
        cells.chain(heads.get(column).map(|head| head.len())).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..heads.len()).map(width).collect();
    let line = |cells: Vec<&str>| {
        let padded: Vec<String> = cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        anstream::println!("| {} |", padded.join(" | "));
    };
    line(heads.to_vec());
    anstream::println!("|{}|", widths.iter().map(|w| "-".repeat(w + 2)).collect::<Vec<_>>().join("|"));
    for row in rows {
        line(row.iter().map(String::as_str).collect());
    }
    anstream::println!();
}

/// `ok` or `MISSED`, with the numbers.
pub(crate) fn verdict(target: &str, holds: bool, found: &str) {
    anstream::println!("{} {target}: {found}", if holds { "ok    " } else { "MISSED" });
}

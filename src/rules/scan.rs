//! What a scanner's report says: findings counted by severity, and whether that passes. Reads reports as tools write them.

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use crate::text_enum;

text_enum! {
    /// How bad a finding is, from bad to worse.
    Severity {
        /// Hardly.
        Low = "low",
        /// Somewhat.
        Medium = "medium",
        /// Rather.
        High = "high",
        /// Very.
        Critical = "critical",
    }
}

/// Characters that a tool's name may have.
const LONGEST_NAME: usize = 200;

/// Findings by severity.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields, default)]
#[schema(example = json!({"critical": 0, "high": 0, "medium": 2, "low": 7, "unknown": 0}))]
pub struct Severities {
    /// Critical ones.
    #[serde(deserialize_with = "count")]
    #[schema(required = false, value_type = i64, minimum = 0, maximum = 4_294_967_295_i64)]
    pub critical: u32,
    /// High ones.
    #[serde(deserialize_with = "count")]
    #[schema(required = false, value_type = i64, minimum = 0, maximum = 4_294_967_295_i64)]
    pub high: u32,
    /// Medium ones.
    #[serde(deserialize_with = "count")]
    #[schema(required = false, value_type = i64, minimum = 0, maximum = 4_294_967_295_i64)]
    pub medium: u32,
    /// Low ones.
    #[serde(deserialize_with = "count")]
    #[schema(required = false, value_type = i64, minimum = 0, maximum = 4_294_967_295_i64)]
    pub low: u32,
    /// Findings without a severity: they keep nothing back.
    #[serde(deserialize_with = "count")]
    #[schema(required = false, value_type = i64, minimum = 0, maximum = 4_294_967_295_i64)]
    pub unknown: u32,
}

/// JSON has no integers: `1.0` is one as well as `1`.
fn count<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    let number = serde_json::Number::deserialize(deserializer)?;
    let whole = number
        .as_f64()
        .filter(|float| float.fract() == 0.0 && (0.0..=f64::from(u32::MAX)).contains(float));
    whole.map(|float| float as u32).ok_or_else(|| {
        D::Error::custom("invalid_value: a count is a whole number from 0 to 4294967295")
    })
}

impl Severities {
    fn add(&mut self, severity: Option<Severity>) {
        let count = match severity {
            Some(Severity::Critical) => &mut self.critical,
            Some(Severity::High) => &mut self.high,
            Some(Severity::Medium) => &mut self.medium,
            Some(Severity::Low) => &mut self.low,
            None => &mut self.unknown,
        };
        *count = count.saturating_add(1);
    }

    /// Whether nothing is worse than `most`.
    pub fn pass(&self, most: Severity) -> bool {
        let worse = [
            (Severity::Critical, self.critical),
            (Severity::High, self.high),
            (Severity::Medium, self.medium),
            (Severity::Low, self.low),
        ];
        worse.iter().all(|(severity, count)| *severity as u8 <= most as u8 || *count == 0)
    }
}

/// What a report says.
#[derive(Debug, PartialEq, Eq)]
pub struct Report {
    /// The scanner, with its version where the report has it.
    pub tool: String,
    /// What it found.
    pub findings: Severities,
}

/// Reads a report in one of the known forms: SARIF 2.1.0, or Trivy's JSON. `None` for anything else, and for a report of no
/// run, or of one that did not come to an end: it says nothing, and nothing is not a pass.
pub fn read(report: &Value) -> Option<Report> {
    if items(report, "runs").next().is_some() && items(report, "runs").all(is_complete) {
        Some(sarif(report))
    } else if report.get("SchemaVersion").is_some() && report.get("ArtifactName").is_some() {
        Some(trivy(report))
    } else {
        None
    }
}

/// SARIF 2.1.0 (OASIS, section 3.27). Results that are no failure (3.27.9) or suppressed (3.27.23, 3.35.3) do not count.
fn sarif(report: &Value) -> Report {
    let mut findings = Severities::default();
    let runs = || items(report, "runs");
    for run in runs() {
        for result in items(run, "results").filter(|result| is_open_failure(result)) {
            findings.add(sarif_severity(run, result));
        }
    }
    let tools: Vec<_> = runs().filter_map(|run| tool_of(&run["tool"]["driver"])).collect();
    Report {
        tool: if tools.is_empty() { "sarif".into() } else { line(&tools.join(", ")) },
        findings,
    }
}

/// Whether a run looked for results (SARIF, 3.14.23: without `results`, it did not), and was not broken off (3.20.14).
fn is_complete(run: &Value) -> bool {
    run["results"].is_array()
        && items(run, "invocations").all(|invocation| invocation["executionSuccessful"] != false)
}

/// A name as a report gives it, cut to what a name may be.
fn line(text: &str) -> String {
    text.trim().chars().filter(|c| !c.is_control()).take(LONGEST_NAME).collect()
}

fn tool_of(driver: &Value) -> Option<String> {
    let name = driver["name"].as_str()?;
    let version = driver["semanticVersion"].as_str().or(driver["version"].as_str());
    Some(version.map_or_else(|| name.to_owned(), |version| format!("{name} {version}")))
}

fn is_open_failure(result: &Value) -> bool {
    let is_failure = result["kind"].as_str().is_none_or(|kind| kind == "fail");
    let mut suppressions = items(result, "suppressions").peekable();
    let is_suppressed = suppressions.peek().is_some()
        && suppressions.all(|s| s["status"].as_str().is_none_or(|status| status == "accepted"));
    is_failure && !is_suppressed
}

/// The rule's CVSS score, where it has one, by the bands of CVSS 3.1 (section 5), as GitHub code scanning reads
/// `security-severity`; else the level: error, warning, note.
fn sarif_severity(run: &Value, result: &Value) -> Option<Severity> {
    let rule = sarif_rule(run, result);
    let score = |of: &Value| match &of["properties"]["security-severity"] {
        Value::String(text) => text.parse::<f64>().ok(),
        number => number.as_f64(),
    };
    if let Some(score) = score(result).or_else(|| rule.and_then(score)) {
        return match score {
            s if s >= 9.0 => Some(Severity::Critical),
            s if s >= 7.0 => Some(Severity::High),
            s if s >= 4.0 => Some(Severity::Medium),
            s if s > 0.0 => Some(Severity::Low),
            _ => None,
        };
    }
    let level = result["level"]
        .as_str()
        .or_else(|| rule.and_then(|rule| rule["defaultConfiguration"]["level"].as_str()));
    match level.unwrap_or("warning") {
        "error" => Some(Severity::High),
        "warning" => Some(Severity::Medium),
        "note" => Some(Severity::Low),
        _ => None,
    }
}

/// The rule of a result: by index or by id, of the driver or of one of its extensions (3.52).
fn sarif_rule<'a>(run: &'a Value, result: &Value) -> Option<&'a Value> {
    let extension = result["rule"]["toolComponent"]["index"]
        .as_u64()
        .and_then(|index| run["tool"]["extensions"].get(index as usize));
    let component = extension.unwrap_or(&run["tool"]["driver"]);
    let index = result["ruleIndex"].as_u64().or(result["rule"]["index"].as_u64());
    if let Some(rule) = index.and_then(|index| component["rules"].get(index as usize)) {
        return Some(rule);
    }
    let id = result["ruleId"].as_str().or(result["rule"]["id"].as_str())?;
    let components =
        std::iter::once(&run["tool"]["driver"]).chain(items(&run["tool"], "extensions"));
    components.flat_map(|component| items(component, "rules")).find(|rule| rule["id"] == id)
}

/// Trivy's JSON, schema version 2: vulnerabilities, failed misconfiguration checks, secrets.
fn trivy(report: &Value) -> Report {
    let mut findings = Severities::default();
    for result in items(report, "Results") {
        let misconfigurations = items(result, "Misconfigurations")
            .filter(|check| check["Status"].as_str().is_none_or(|status| status == "FAIL"));
        for finding in items(result, "Vulnerabilities")
            .chain(misconfigurations)
            .chain(items(result, "Secrets"))
        {
            findings.add(
                finding["Severity"].as_str().and_then(|word| word.to_lowercase().parse().ok()),
            );
        }
    }
    let version = report["Trivy"]["Version"].as_str();
    Report {
        tool: version
            .map_or_else(|| "trivy".to_owned(), |version| line(&format!("trivy {version}"))),
        findings,
    }
}

fn items<'a>(of: &'a Value, list: &str) -> impl Iterator<Item = &'a Value> + use<'a> {
    of[list].as_array().into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_worse_than_allowed_fails() {
        let found = Severities { high: 1, unknown: 9, ..Severities::default() };
        assert!(found.pass(Severity::Critical) && found.pass(Severity::High));
        assert!(!found.pass(Severity::Medium) && !found.pass(Severity::Low));
        assert!(Severities::default().pass(Severity::Low));
    }

    #[test]
    fn sarif_is_counted_by_score_then_by_level() {
        let report = json!({
            "$schema": "https://json.schemastore.org/sarif-2.1.0.json", "version": "2.1.0",
            "runs": [{
                "tool": {"driver": {"name": "Trivy", "version": "0.66.0", "rules": [
                    {"id": "CVE-1", "properties": {"security-severity": "9.8"}},
                    {"id": "CVE-2", "properties": {"security-severity": "7.0"}},
                    {"id": "R3", "defaultConfiguration": {"level": "note"}}
                ]}},
                "results": [
                    {"ruleId": "CVE-1", "ruleIndex": 0, "level": "error"},
                    {"ruleId": "CVE-2", "level": "warning"},
                    {"ruleId": "R3"},
                    {"ruleId": "R4", "level": "error"},
                    {"ruleId": "R5"},
                    {"ruleId": "R6", "level": "none"},
                    {"ruleId": "R7", "kind": "pass"},
                    {"ruleId": "CVE-1", "suppressions": [{"kind": "external", "status": "accepted"}]},
                    {"ruleId": "CVE-1", "suppressions": [{"kind": "external", "status": "rejected"}]}
                ]
            }]
        });
        let expected = Severities { critical: 2, high: 2, medium: 1, low: 1, unknown: 1 };
        assert_eq!(read(&report), Some(Report { tool: "Trivy 0.66.0".into(), findings: expected }));
    }

    #[test]
    fn the_bands_are_those_of_cvss() {
        let severity = |score: &str| {
            let run = json!({"tool": {"driver": {"rules": []}}});
            sarif_severity(
                &run,
                &json!({"level": "error", "properties": {"security-severity": score}}),
            )
        };
        let bands = [
            ("0.0", None),
            ("0.1", Some(Severity::Low)),
            ("3.9", Some(Severity::Low)),
            ("4.0", Some(Severity::Medium)),
            ("6.9", Some(Severity::Medium)),
            ("7.0", Some(Severity::High)),
            ("8.9", Some(Severity::High)),
            ("9.0", Some(Severity::Critical)),
            ("10.0", Some(Severity::Critical)),
        ];
        for (score, expected) in bands {
            assert_eq!(severity(score), expected, "{score}");
        }
    }

    #[test]
    fn trivy_is_counted_with_its_misconfigurations_and_secrets() {
        let report = json!({
            "SchemaVersion": 2, "ArtifactName": "prop", "ArtifactType": "container_image",
            "Results": [
                {"Target": "debian", "Class": "os-pkgs", "Vulnerabilities": [{"VulnerabilityID": "CVE-1", "Severity": "CRITICAL"}, {"VulnerabilityID": "CVE-2", "Severity": "UNKNOWN"}]},
                {"Target": "Dockerfile", "Misconfigurations": [{"ID": "DS001", "Status": "FAIL", "Severity": "HIGH"}, {"ID": "DS002", "Status": "PASS", "Severity": "HIGH"}]},
                {"Target": "app", "Secrets": [{"RuleID": "aws", "Severity": "CRITICAL"}]},
                {"Target": "nothing"}
            ]
        });
        let expected = Severities { critical: 2, high: 1, unknown: 1, ..Severities::default() };
        assert_eq!(read(&report), Some(Report { tool: "trivy".into(), findings: expected }));
    }

    #[test]
    fn anything_else_is_no_report() {
        let broken_off =
            json!({"runs": [{"results": [], "invocations": [{"executionSuccessful": false}]}]});
        for other in [
            json!({}),
            json!([]),
            json!({"runs": 1}),
            json!({"runs": []}),
            json!({"runs": [{}]}),
            json!({"runs": [1, "x"]}),
            broken_off,
            json!({"tool": "x", "summary": {}}),
            json!("runs"),
        ] {
            assert_eq!(read(&other), None);
        }
    }
}

//! Scanner reports: counts the findings by severity and decides whether they pass. Reads SARIF
//! 2.1.0 and the JSON of Trivy.

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use crate::text_enum;
use crate::types::invisible;
use crate::types::malformed::Malformed;

text_enum! {
    /// The severity of a finding, in ascending order. The scores are those of CVSS 3.1.
    Severity {
        /// A CVSS score from 0.1 to 3.9, or a SARIF note.
        Low = "low",
        /// A CVSS score from 4.0 to 6.9, or a SARIF warning.
        Medium = "medium",
        /// A CVSS score from 7.0 to 8.9, or a SARIF error.
        High = "high",
        /// A CVSS score from 9.0 to 10.0.
        Critical = "critical",
    }
}

/// The largest number of characters of a tool's name.
const LONGEST_NAME: usize = 200;

/// The number of findings of each severity. A severity that is absent in a request counts as 0.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields, default)]
#[schema(example = json!({"critical": 0, "high": 0, "medium": 2, "low": 7, "unknown": 0}))]
pub struct Severities {
    /// The number of critical findings.
    #[serde(deserialize_with = "count")]
    #[schema(required = false, value_type = i64, minimum = 0, maximum = 4_294_967_295_i64)]
    pub critical: u32,
    /// The number of findings with a high severity.
    #[serde(deserialize_with = "count")]
    #[schema(required = false, value_type = i64, minimum = 0, maximum = 4_294_967_295_i64)]
    pub high: u32,
    /// The number of findings with a medium severity.
    #[serde(deserialize_with = "count")]
    #[schema(required = false, value_type = i64, minimum = 0, maximum = 4_294_967_295_i64)]
    pub medium: u32,
    /// The number of findings with a low severity.
    #[serde(deserialize_with = "count")]
    #[schema(required = false, value_type = i64, minimum = 0, maximum = 4_294_967_295_i64)]
    pub low: u32,
    /// The number of findings without a severity. They do not fail a scan.
    #[serde(deserialize_with = "count")]
    #[schema(required = false, value_type = i64, minimum = 0, maximum = 4_294_967_295_i64)]
    pub unknown: u32,
}

/// Deserializes a count. JSON has no integer type: `1.0` is as valid as `1`.
fn count<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    let number = serde_json::Number::deserialize(deserializer)?;
    let whole = number
        .as_f64()
        .filter(|float| float.fract() == 0.0 && (0.0..=f64::from(u32::MAX)).contains(float));
    whole.map(|float| float as u32).ok_or_else(|| {
        let detail = "a count is a whole number from 0 to 4294967295";
        D::Error::custom(Malformed::new("invalid_value", detail))
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

    /// Whether no finding is worse than `most`.
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

/// The content of a report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The name of the scanner, with its version if the report has it.
    pub tool: String,
    /// The number of findings of each severity.
    pub findings: Severities,
}

/// Reads a SARIF 2.1.0 report or Trivy's JSON. `None` for anything else, and for a SARIF report
/// without a completed run: it does not show that the scan passed.
pub fn read(report: &Value) -> Option<Report> {
    if items(report, "runs").next().is_some() && items(report, "runs").all(is_complete) {
        Some(sarif(report))
    } else if report.get("SchemaVersion").is_some() && report.get("ArtifactName").is_some() {
        Some(trivy(report))
    } else {
        None
    }
}

/// Reads SARIF 2.1.0 (OASIS, section 3.27). Results that are not failures (3.27.9) or are
/// suppressed (3.27.23, 3.35.3) do not count.
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

/// Whether a run looked for results (SARIF, 3.14.23: without `results` it did not) and was not
/// aborted (3.20.14).
fn is_complete(run: &Value) -> bool {
    run["results"].is_array()
        && items(run, "invocations").all(|invocation| invocation["executionSuccessful"] != false)
}

/// A tool's name without invisible characters, cut to the allowed length.
fn line(text: &str) -> String {
    text.trim().chars().filter(|c| !invisible::in_name(*c)).take(LONGEST_NAME).collect()
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

/// The severity of a SARIF result: from the CVSS score of the rule if it has one
/// (`security-severity`, as GitHub code scanning reads it; bands of CVSS 3.1, section 5), else from
/// the level (error, warning, note).
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

/// Finds the rule of a result by index or by id, in the driver or in one of its extensions (SARIF,
/// 3.52).
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

/// Reads Trivy's JSON, schema version 2: vulnerabilities, failed misconfiguration checks, and
/// secrets.
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
                    {"ruleId": "CVE-1",
                        "suppressions": [{"kind": "external", "status": "accepted"}]},
                    {"ruleId": "CVE-1",
                        "suppressions": [{"kind": "external", "status": "rejected"}]}
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
                {"Target": "debian", "Class": "os-pkgs", "Vulnerabilities": [
                    {"VulnerabilityID": "CVE-1", "Severity": "CRITICAL"},
                    {"VulnerabilityID": "CVE-2", "Severity": "UNKNOWN"}]},
                {"Target": "Dockerfile", "Misconfigurations": [
                    {"ID": "DS001", "Status": "FAIL", "Severity": "HIGH"},
                    {"ID": "DS002", "Status": "PASS", "Severity": "HIGH"}]},
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

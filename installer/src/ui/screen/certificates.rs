//! Page 6: the server certificate.

use crate::check::Outcome;
use crate::config::Page;
use crate::ui::answers::CertificateMode;
use crate::ui::field::{Field, Pem};
use crate::ui::sheet::Sheet;

pub(super) const HELP: &str = "\
Generate: the site makes its own certificate authority. Clients have to be given its root certificate.

Request: a key is made on this machine and a request (CSR) is written to a medium. Have it signed by your authority, come \
back and name the answer; you need not start over, as long as the machine stays on: until the disk is encrypted the key is \
kept in memory.

Import: certificate and key are there already. Give their paths, or paste the PEM text. The chain may come in any order.

Everything that is wrong with a certificate is said at once, before a disk is touched.";

pub(super) fn fill(sheet: &mut Sheet) {
    let model = sheet.model;
    let mode = model.answers.certificate_mode;
    let fqdn = model.answers.fqdn.trim();
    let name = if fqdn.is_empty() { "the site" } else { fqdn };
    sheet.lead(&format!("Who vouches for {name}?"));
    let choice = |this| Field::Certificates(this);
    sheet.radio(
        choice(CertificateMode::Generate),
        mode == CertificateMode::Generate,
        "Generate: the site makes its own authority",
        "",
    );
    sheet.radio(
        choice(CertificateMode::Request),
        mode == CertificateMode::Request,
        "Request: our authority signs a request (CSR)",
        "",
    );
    sheet.radio(
        choice(CertificateMode::Import),
        mode == CertificateMode::Import,
        "Import: certificate and key are there already",
        "",
    );
    sheet.gap();
    match mode {
        CertificateMode::Generate => {
            sheet.cycle(Field::Algorithm, "Keys", &model.answers.algorithm, "ecdsa-p256 suits nearly everybody");
            sheet.gap();
            sheet.note("The root certificate is shown with its fingerprint when the site is done. A certificate of your own authority can be imported later.");
        }
        CertificateMode::Request => {
            sheet.text_field(Field::Request, "Write request to", "");
            sheet.field_action(Field::MakeRequest, "Make the request", "the key stays on this machine");
            sheet.progress(&model.tasks.request, "making the request");
            sheet.gap();
            sheet.text_field(Field::Certificate, "Signed certificate", "");
            sheet.field_action(Field::Paste(Pem::Certificate), "Paste it", "the answer with its intermediates, PEM");
            roots(sheet);
        }
        CertificateMode::Import => {
            sheet.text_field(Field::Certificate, "Certificate", "");
            sheet.field_action(Field::Paste(Pem::Certificate), "Paste it", "with its intermediates, PEM");
            sheet.text_field(Field::Key, "Private key", "");
            sheet.field_action(Field::Paste(Pem::Key), "Paste it", "not encrypted, PEM; it is not shown");
            roots(sheet);
        }
    }
    super::other_problems(sheet, Page::Certificates);
    if mode != CertificateMode::Generate {
        judgement(sheet);
    }
}

fn roots(sheet: &mut Sheet) {
    sheet.text_field(Field::Roots, "Root certificate", "");
    sheet.field_action(Field::Paste(Pem::Roots), "Paste it", "what clients trust, PEM");
}

fn judgement(sheet: &mut Sheet) {
    let model = sheet.model;
    let draft = model.answers.draft().0;
    sheet.gap();
    if sheet.progress(&model.tasks.judge, "reading the certificate") && model.tasks.judge.running().is_some() {
        return;
    }
    let Some(judged) = model.tasks.judge.answer(&draft) else { return };
    let fails = judged.findings.iter().any(|finding| finding.severity == certs::Severity::Fail);
    if fails {
        sheet.heading("This certificate cannot be used");
    } else {
        sheet.heading("This certificate can be used");
        for (name, value) in &judged.summary {
            sheet.fact(name, value);
        }
    }
    for finding in &judged.findings {
        let (outcome, style) = match finding.severity {
            certs::Severity::Fail => (Outcome::Fail, sheet.theme.bad()),
            certs::Severity::Warn => (Outcome::Warn, sheet.theme.warn()),
        };
        sheet.text(&format!("{} {}: {}", sheet.theme.mark(outcome), finding.id, finding.message), style);
        if let Some(hint) = &finding.hint {
            sheet.note(&format!("    hint: {hint}"));
        }
    }
}

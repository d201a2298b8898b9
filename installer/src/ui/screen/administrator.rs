//! Page 9: the account of the machine's administrator.

use ratatui::text::Span;

use crate::config::Page;
use crate::ui::answers::lines;
use crate::ui::field::Field;
use crate::ui::secret::password_rules;
use crate::ui::sheet::{Sheet, cut};

pub(super) const HELP: &str = "\
There is no default account and no default password. The accounts of this host stay as they are (an appliance has none); if \
you like, one more is made for the site's administrator, with the right to become root by sudo. Over the network an \
appliance takes SSH keys alone; a password is for its consoles.

The password is turned into a hash at once and then wiped; only the hash is kept, and it is the only thing that a saved \
file of answers holds. Nothing of what you type is shown.

SSH keys: paste the lines of a .pub file. With a key the password may be left out.";

pub(super) fn fill(sheet: &mut Sheet) {
    let model = sheet.model;
    let answers = &model.answers;
    sheet.lead("Who looks after this machine?");
    let (others, warning) = if model.is_appliance() {
        ("Nobody logs in to it", "the site is looked after by its API alone; there is no other account")
    } else {
        ("The accounts that are there already", "")
    };
    sheet.radio(Field::Administrator(false), !answers.make_administrator, others, warning);
    sheet.radio(Field::Administrator(true), answers.make_administrator, "A new account for the administrator", "");
    if !answers.make_administrator {
        return;
    }
    sheet.gap();
    sheet.text_field(Field::AccountName, "Name", "");
    let set = if answers.password_hash.is_some() { "one is set; type to replace it" } else { "" };
    sheet.secret_field(Field::Password, "Password", set);
    sheet.secret_field(Field::PasswordAgain, "Password again", "");
    if model.needs_password() {
        let rules = password_rules(&model.password, &model.password_again, &answers.administrator);
        super::rules(sheet, Field::PasswordAgain, &rules);
        sheet.progress(&model.tasks.hash, "hashing the password");
    }
    sheet.gap();
    sheet.text_field(Field::SshKeys, "SSH public keys", "paste them; one to a line");
    for key in lines(&answers.ssh_keys) {
        let words: Vec<&str> = key.split_whitespace().collect();
        let body = words
            .get(1)
            .map(|body| body.chars().rev().take(8).collect::<Vec<_>>().into_iter().rev().collect::<String>())
            .unwrap_or_default();
        let text = format!("{} …{body} {}", words.first().unwrap_or(&""), words.get(2..).unwrap_or_default().join(" "));
        let room = sheet.width.saturating_sub(23);
        sheet.line(vec![Span::raw(" ".repeat(23)), Span::styled(cut(&text, room), sheet.theme.muted())]);
    }
    super::other_problems(sheet, Page::Administrator);
}

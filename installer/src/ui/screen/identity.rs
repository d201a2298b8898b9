//! Page 5: the name under which people reach the site.

use crate::config::Page;
use crate::ui::field::Field;
use crate::ui::sheet::Sheet;

pub(super) const HELP: &str = "\
The FQDN is the name in the address that people will open, and the name in the certificate. It must resolve to this host, \
or to the virtual IP if there is one, on this machine and on every client.

If your DNS does not know it yet, add a record, or a line to /etc/hosts. F4 or ^R looks it up again.

The site's short name appears in lists and in the name of the site's certificate authority.";

pub(super) fn fill(sheet: &mut Sheet) {
    sheet.lead("Under which name will people reach the management cluster?");
    sheet.text_field(Field::Fqdn, "FQDN", "for example mgmt.rack7.example.com");
    sheet.gap();
    sheet.text_field(Field::SiteName, "Site name", "short; lower-case letters, digits and dashes");
    sheet.gap();
    sheet.text_field(Field::Vip, "Virtual IP", "in front of several control plane nodes; leave it empty for one node");
    super::other_problems(sheet, Page::Identity);
    super::findings(sheet, Page::Identity, "Lookups");
}

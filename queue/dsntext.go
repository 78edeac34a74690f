package queue

import (
	"strings"
	"time"
)

func (d *dsn) subject() string {
	switch d.kind() {
	case kindFailed:
		return "Undelivered mail returned to sender"
	case kindDelayed:
		return "Delayed mail (still being retried)"
	}
	return "Successful mail delivery report"
}

// text is the part for people.
func (d *dsn) text(o *out) {
	o.line("This is the mail system at %s.", d.hostname)
	o.line("")
	o.para("", d.intro())
	for _, it := range d.items {
		o.line("")
		o.exactLine("  <", shown(&it.env), ">:")
		for _, s := range d.story(it) {
			o.para("    ", s)
		}
	}
	o.line("")
	o.para("", d.outlook())
	if d.original != nil && d.original.tooLarge {
		o.line("")
		o.para("", "Your message is too large to be sent back. Its header is below.")
	}
}

// exactLine writes text from a stranger with its blanks.
func (o *out) exactLine(before, text, after string) {
	o.line("%s%s%s", before, o.clean(text), after)
}

func (d *dsn) intro() string {
	of := "Your message of " + d.message.Created.Format(time.RFC1123Z)
	switch d.kind() {
	case kindFailed:
		return of + " could not be delivered to:"
	case kindDelayed:
		return of + " has not been delivered yet to:"
	}
	return "You asked to be told what becomes of your message of " + d.message.Created.Format(time.RFC1123Z) + ":"
}

// outlook says what happens next.
func (d *dsn) outlook() string {
	switch d.kind() {
	case kindFailed:
		return "It will not be tried again. All other recipients, if there were any, are not affected."
	case kindDelayed:
		return "You need not do anything: it is tried again by itself, and you will be told if that is given up. Please do not send it once more."
	}
	return "There is nothing that you need to do."
}

// shown is the recipient as the sender knows it.
func shown(e *Envelope) string {
	if e.Recipient != "" {
		return e.Recipient
	}
	return e.Address
}

// story says in plain words what became of a recipient, and then what was said
// about it.
func (d *dsn) story(it *item) []string {
	n := it.note
	var all []string
	switch {
	case n.Kind == kindDelivered:
		all = append(all, "It was delivered.")
	case n.Kind == kindRelayed:
		all = append(all, "It was handed to a server that sends no such reports. You may not be told how it goes on from there.")
	case n.Kind == kindExpanded:
		all = append(all, "It was delivered to this address and sent on to all of its members. You will be told only if that fails.")
	case n.Expired && n.Enhanced == statusTooLate:
		all = append(all, "It was to be delivered by "+d.message.DeliverBy.Time.Format(time.RFC1123Z)+", or else returned.")
	case n.Expired:
		all = append(all, "It was tried until "+it.env.Expires.Format(time.RFC1123Z)+", which is as long as mail is tried.")
	}
	if n.Kind == kindFailed || n.Kind == kindDelayed {
		all = append(all, plainWords(n.cause(), n.Code))
	}
	if said := n.reply(); said != "" {
		switch {
		case n.Remote == "":
		case n.Code != 0:
			said = n.Remote + " said: " + said
		default: // about it, by ourselves
			said = n.Remote + ": " + said
		}
		all = append(all, said)
	}
	if n.Kind == kindDelayed {
		all = append(all, "It will be tried until "+it.env.Expires.Format(time.RFC1123Z)+".")
	}
	return all
}

// plainWords says what an enhanced code means (RFC 3463), or else a reply code.
func plainWords(enhanced string, code int) string {
	class, detail, _ := strings.Cut(enhanced, ".")
	if words := meaning(detail); words != "" {
		return words
	}
	subject, _, _ := strings.Cut(detail, ".")
	switch subject {
	case "1":
		return "The address is refused."
	case "2":
		return "The mailbox does not take the message."
	case "3":
		return "The mail server of the recipient has a problem."
	case "4":
		return "The mail server of the recipient cannot be reached."
	case "5":
		return "The servers do not understand each other."
	case "6":
		return "The server cannot handle what is in the message."
	case "7":
		return "The server refuses the message by its policy."
	}
	if class == "5" || code >= 500 {
		return "The server refuses the message."
	}
	return "The server does not take the message at the moment."
}

// meaning is what some codes mean, without their class.
func meaning(detail string) string {
	switch detail {
	case "1.1":
		return "There is no such mailbox."
	case "1.2":
		return "The domain of the address does not exist."
	case "1.3":
		return "The address is not well-formed."
	case "1.6":
		return "The mailbox has moved, and no new address is known."
	case "1.10":
		return "The domain of the address takes no mail."
	case "2.1":
		return "The mailbox is disabled."
	case "2.2":
		return "The mailbox is full."
	case "2.3", "3.4":
		return "The message is too large."
	case "3.1":
		return "The mail server of the recipient has no room left."
	case "4.1":
		return "The mail server of the recipient does not answer."
	case "4.2":
		return "The connection to the mail server of the recipient broke off."
	case "4.3", "4.4":
		return "The mail server of the recipient cannot be found."
	case "4.6":
		return "The message goes round in circles."
	case "4.7":
		return "It could not be delivered in time."
	case "5.3":
		return "The message has too many recipients."
	case "6.7":
		return "The server does not support addresses and headers in UTF-8, which the message needs."
	case "7.5", "7.10", "7.11":
		return "The connection to the server cannot be secured as it must be."
	case "7.8":
		return "The login at the server failed."
	}
	return ""
}

package lookup

import "tabard/internal/count"

// VerdictDesc describes the count of verdicts in one direction: "in" on clients'
// certificates, "out" on servers'. Its words are those that logs and Received
// print.
func VerdictDesc(direction string) count.Desc {
	series := [][]string{VerdictSeries(direction, Verdict{State: Verified}), VerdictSeries(direction, Verdict{State: Unchecked})}
	for _, reason := range append(Reasons(), "other") {
		series = append(series, VerdictSeries(direction, Verdict{State: Failed, Reason: reason}))
	}
	return count.Desc{
		Name: "tabard_tls_verdicts_total", Help: "Verdicts on the certificates of clients (in) and servers (out), in the words of the log: one for each TLS session, and one for each that becomes another later.",
		Kind: count.Counter, Labels: []string{"direction", "result", "reason"}, Series: series,
	}
}

// VerdictSeries returns the values of VerdictDesc's labels for a verdict.
func VerdictSeries(direction string, v Verdict) []string {
	reason := ""
	if v.State == Failed {
		reason = v.Reason
	}
	return []string{direction, v.State.String(), reason}
}

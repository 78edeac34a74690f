package metrics

import (
	"strconv"
	"strings"

	"tabard/lookup"
	"tabard/table/cache"
)

// tables tells how the tables do. Counts are those of the lookup process in force:
// what a table was before a reload is another table's matter.
func (b *builder) tables(tables []lookup.TableInfo) {
	for i := range tables {
		t := &tables[i]
		remembered, stale := int64(0), int64(0)
		if c := t.Cache; c != nil {
			remembered, stale = c.Hits, c.Stale
			b.cached(t.Name, c)
		}
		const answers = "Questions to the table, by where the answer came from: memory; its source; stale, that is memory because the source could not be asked."
		b.counter("tabard_table_answers_total", answers, float64(remembered), "table", t.Name, "from", "memory")
		b.counter("tabard_table_answers_total", answers, float64(max(0, t.Questions-remembered-stale)), "table", t.Name, "from", "source")
		b.counter("tabard_table_answers_total", answers, float64(stale), "table", t.Name, "from", "stale")
		b.counter("tabard_table_errors_total", "Questions that the source of the table failed.", float64(t.Source.Errors), "table", t.Name)
		if t.Source.State != lookup.SourceUnasked {
			b.gauge("tabard_table_up", "Whether the source of the table answers: 1 or 0. Nothing before the first question.", truth(t.Source.State == lookup.SourceUp), "table", t.Name)
		}
	}
}

// cached tells of the memory in front of a table.
func (b *builder) cached(name string, c *cache.Stats) {
	b.gauge("tabard_table_cache_entries", "Answers of the table that are in memory.", float64(c.Entries), "table", name)
	b.gauge("tabard_table_cache_bytes", "Memory that the answers of the table take, estimated.", float64(c.Bytes), "table", name)
	b.gauge("tabard_table_cache_limit_bytes", "Memory that the answers of the table may take.", float64(c.Limit), "table", name)
	for _, state := range []cache.WatchState{cache.WatchTold, cache.WatchPending, cache.WatchLost, cache.WatchNever} {
		b.gauge("tabard_table_watch", "Whether changes of the table are told: 1 for the state that holds, in the words of tabard status.",
			truth(c.Watch.State == state), "table", name, "state", string(state))
	}
}

// certificates tells when certificates end, and which are not used.
func (b *builder) certificates(f *lookup.Figures) {
	b.gauge("tabard_certificates", "Certificates in use that were asked for since the lookup process began.", float64(f.Known))
	for _, c := range f.Certificates[:min(len(f.Certificates), lookup.MaxCertificates)] {
		b.gauge("tabard_certificate_expiry_timestamp_seconds", "When the certificate in use ends, or the last one ended; of the 500 that end first.",
			float64(c.NotAfter.Unix()), "name", c.Name, "table", tableOf(c.Source), "key", c.Key)
	}
	for _, c := range f.Faults[:min(len(f.Faults), lookup.MaxCertificates)] {
		b.gauge("tabard_certificate_fault", "Always 1: a certificate of the name is not used; serving says whether another one is served meanwhile.",
			1, "name", c.Name, "table", tableOf(c.Source), "reason", c.Reason, "serving", strconv.FormatBool(c.Serving))
	}
}

// tableOf names the table of a certificate; empty for one from a file of pki.
func tableOf(source string) string {
	name, _ := strings.CutPrefix(source, "table ")
	if name == source {
		return ""
	}
	return name
}

package eventdb

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"tabard/internal/eventlog"
)

// A domain that is in many messages is looked for in the order of time, others by their
// index; both find the same.
func TestCommonDomain(t *testing.T) {
	t.Parallel()
	d := opened(t, Source{Path: emptyFile(t)})
	if err := d.Write(t.Context(), example()); err != nil {
		t.Fatal(err)
	}
	seq := 0
	mails := &eventlog.Batch{}
	for range sampleRows {
		seq++
		domain := "many.example"
		if seq%100 == 0 {
			domain = "few.example"
		}
		head, id := at(-seq), fmt.Sprintf("%016x", 0xf000+seq)
		mails.Messages = append(mails.Messages, eventlog.Message{Head: head, ID: id, Domain: domain})
		mails.Envelopes = append(mails.Envelopes, eventlog.Envelope{Head: head, Party: eventlog.Party{Message: id, Domain: domain}})
	}
	if err := d.Write(t.Context(), mails); err != nil {
		t.Fatal(err)
	}
	dense := common{true, true}
	for _, tt := range []struct {
		q    Query
		want common
	}{
		{Query{Domain: "MANY.example"}, dense},
		{Query{Domain: "few.example"}, common{}},
		{Query{Domain: "few.example", Since: at(-10).At}, dense}, // few events
		{Query{Domain: "few.example", batches: []batch{{since: at(-10).At, until: at(-5).At}}}, dense},
		{Query{Address: "a@many.example"}, common{}},
	} {
		if got, err := d.common(t.Context(), d.db, &tt.q); err != nil || got != tt.want {
			t.Errorf("%+v: %+v, %v", tt.q, got, err)
		}
	}
	for _, k := range eventlog.Kinds() {
		for _, domain := range []string{"many.example", "few.example", "a.example", "c.example"} {
			var lists [][]eventlog.Event
			for _, c := range []common{{}, dense} {
				q := Query{Domain: domain, Since: at(-50).At, common: c}
				keys := map[int64]bool{}
				var list []eventlog.Event
				for _, where := range d.where(k, &q, nil) {
					if plan := explain(t.Context(), t, d, fmt.Sprintf("SELECT 1 FROM %s WHERE %s ORDER BY at, key LIMIT 5", tableOf(k), where.text), where.args); strings.Contains(plan, "TEMP B-TREE") == (c == dense) {
						t.Errorf("%s, %+v: %s", where.text, c, plan)
					}
					s := &stream{d: d, db: d.db, kind: k, where: where}
					if err := s.page(t.Context()); err != nil {
						t.Fatal(err)
					}
					for _, e := range s.ready {
						if key := e.Common().Key; !keys[key] {
							keys[key] = true
							list = append(list, e)
						}
					}
				}
				slices.SortFunc(list, compare)
				lists = append(lists, list)
			}
			if !slices.EqualFunc(lists[0], lists[1], func(a, b eventlog.Event) bool { return *a.Common() == *b.Common() }) {
				t.Errorf("%ss of %s: %d by the index, %d in order", k, domain, len(lists[0]), len(lists[1]))
			}
		}
	}
}

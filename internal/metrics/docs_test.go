package metrics

import (
	"encoding/json"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// described is what an answer or the documentation says of a metric.
type described struct{ kind, labels, help string }

// describe reads what an answer says of each of its metrics.
func describe(text string) map[string]described {
	all, labels := map[string]described{}, map[string]map[string]bool{}
	sample, pair := regexp.MustCompile(`^(\w+?)(_bucket|_sum|_count)?(?:\{(.*)\})? `), regexp.MustCompile(`(\w+)="`)
	for line := range strings.Lines(text) {
		switch words := strings.SplitN(strings.TrimSpace(line), " ", 4); {
		case strings.HasPrefix(line, "# HELP"):
			all[words[2]], labels[words[2]] = described{help: words[3]}, map[string]bool{}
		case strings.HasPrefix(line, "# TYPE"):
			d := all[words[2]]
			d.kind = words[3]
			all[words[2]] = d
		default:
			m := sample.FindStringSubmatch(line)
			for _, label := range pair.FindAllStringSubmatch(m[3], -1) {
				if name := labels[m[1]]; name != nil && label[1] != "le" {
					name[label[1]] = true
				}
			}
		}
	}
	for name, d := range all {
		d.labels = strings.Join(slices.Sorted(maps.Keys(labels[name])), ", ")
		all[name] = d
	}
	return all
}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestDocumentation: docs/metrics.md lists what there is, and nothing else, in the
// words of the server.
func TestDocumentation(t *testing.T) {
	t.Parallel()
	w, _ := filled(t)
	got := describe(get(t, w.addr))
	documented := map[string]described{}
	for _, m := range regexp.MustCompile("(?m)^\\| `(tabard_\\w+)` \\| (\\w+) \\|(.*?)\\| (.+) \\|$").FindAllStringSubmatch(read(t, "../../docs/metrics.md"), -1) {
		documented[m[1]] = described{m[2], strings.TrimSpace(m[3]), m[4]}
	}
	for name, d := range got {
		if documented[name] != d {
			t.Errorf("%s: documented as %+v, want %+v", name, documented[name], d)
		}
	}
	for name := range documented {
		if _, ok := got[name]; !ok {
			t.Errorf("%s is documented, and is not there", name)
		}
	}
	if len(got) < 40 {
		t.Errorf("%d metrics", len(got))
	}
}

// TestQueries: whatever the dashboard and the documentation's examples ask for is
// there, with the labels that they name, and the dashboard shows all there is.
func TestQueries(t *testing.T) {
	t.Parallel()
	w, _ := filled(t)
	got := describe(get(t, w.addr))
	dashboard := read(t, "../../docs/grafana.json")
	var parsed struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr, LegendFormat string }
		}
	}
	if err := json.Unmarshal([]byte(dashboard), &parsed); err != nil {
		t.Fatal(err)
	}
	queries := map[string]string{"docs/metrics.md": read(t, "../../docs/metrics.md")}
	for _, p := range parsed.Panels {
		for _, target := range p.Targets {
			queries[p.Title] += target.Expr + " {{" + target.LegendFormat + "}}\n"
		}
	}
	asked := map[string]bool{}
	name, label := regexp.MustCompile(`tabard_\w+`), regexp.MustCompile(`(\w+)[=!]~?['"]`)
	for title, text := range queries {
		for _, n := range name.FindAllString(text, -1) {
			base := regexp.MustCompile(`_(bucket|sum|count)$`).ReplaceAllString(n, "")
			if _, ok := got[n]; !ok && got[base].kind != "histogram" {
				t.Errorf("%s asks for %s, which is not there", title, n)
			}
			if title != "docs/metrics.md" {
				asked[base], asked[n] = true, true
			}
		}
		for _, m := range regexp.MustCompile(`(tabard_\w+)\{([^}]*)\}`).FindAllStringSubmatch(text, -1) {
			for _, l := range label.FindAllStringSubmatch(m[2], -1) {
				if l[1] != "instance" && !slices.Contains(strings.Split(got[m[1]].labels, ", "), l[1]) {
					t.Errorf("%s asks for %s with a label %s that it has not", title, m[1], l[1])
				}
			}
		}
	}
	if len(parsed.Panels) < 30 {
		t.Errorf("%d panels", len(parsed.Panels))
	}
	for n := range got {
		if !asked[n] {
			t.Errorf("the dashboard does not show %s", n)
		}
	}
}

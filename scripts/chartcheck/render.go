package chartcheck

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"helm.sh/helm/v3/pkg/chart/loader"
	"helm.sh/helm/v3/pkg/chartutil"
	"helm.sh/helm/v3/pkg/engine"
	"helm.sh/helm/v3/pkg/lint"
	"helm.sh/helm/v3/pkg/lint/support"
	"helm.sh/helm/v3/pkg/releaseutil"
)

// kubeVersion is the Kubernetes that manifests are rendered for: the oldest
// that Chart.yaml admits.
const kubeVersion = "v1.30.0"

// The release that is rendered. Neither word stands in the chart, so that a
// name that does not follow the release's shows.
const (
	releaseName = "acceptance"
	namespace   = "somewhere"
)

// manifest is one rendered document.
type manifest struct {
	template string // file that it came from
	text     string
}

// rendered is what "helm template" would print, and the notes.
type rendered struct {
	manifests []manifest
	notes     string
}

// lintStrictly does what "helm lint --strict" does.
func lintStrictly(dir string, values map[string]any) error {
	version, err := chartutil.ParseKubeVersion(kubeVersion)
	if err != nil {
		return err
	}
	var found []error
	for _, m := range lint.AllWithKubeVersionAndSchemaValidation(dir, values, namespace, version, false).Messages {
		if m.Severity >= support.WarningSev {
			found = append(found, m)
		}
	}
	return errors.Join(found...)
}

// render does what "helm template" does.
func render(dir string, values map[string]any) (rendered, error) {
	return renderRelease(releaseName, dir, values)
}

func renderRelease(name, dir string, values map[string]any) (rendered, error) {
	return renderFor(kubeVersion, name, dir, values)
}

func renderFor(kubernetes, name, dir string, values map[string]any) (rendered, error) {
	loaded, err := loader.Load(dir)
	if err != nil {
		return rendered{}, err
	}
	version, err := chartutil.ParseKubeVersion(kubernetes)
	if err != nil {
		return rendered{}, err
	}
	if !chartutil.IsCompatibleRange(loaded.Metadata.KubeVersion, version.Version) {
		return rendered{}, fmt.Errorf("the chart wants Kubernetes %s, and not %s", loaded.Metadata.KubeVersion, version.Version)
	}
	release := chartutil.ReleaseOptions{Name: name, Namespace: namespace, Revision: 1, IsInstall: true}
	capabilities := chartutil.DefaultCapabilities.Copy()
	capabilities.KubeVersion = *version
	all, err := chartutil.ToRenderValues(loaded, values, release, capabilities)
	if err != nil {
		return rendered{}, err
	}
	files, err := engine.Render(loaded, all)
	if err != nil {
		return rendered{}, err
	}
	var r rendered
	for _, file := range slices.Sorted(maps.Keys(files)) {
		if strings.HasSuffix(file, "NOTES.txt") {
			r.notes = files[file]
			continue
		}
		documents := releaseutil.SplitManifests(files[file])
		for _, name := range slices.SortedFunc(maps.Keys(documents), byLengthThenText) {
			if text := documents[name]; strings.TrimSpace(withoutComments(text)) != "" {
				r.manifests = append(r.manifests, manifest{file, text})
			}
		}
	}
	return r, nil
}

// byLengthThenText puts manifest-2 before manifest-10.
func byLengthThenText(a, b string) int {
	return cmp.Or(cmp.Compare(len(a), len(b)), cmp.Compare(a, b))
}

func withoutComments(text string) string {
	var kept strings.Builder
	for line := range strings.Lines(text) {
		if !strings.HasPrefix(strings.TrimSpace(line), "#") {
			kept.WriteString(line)
		}
	}
	return kept.String()
}

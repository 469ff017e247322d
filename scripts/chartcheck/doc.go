// Package chartcheck checks the Helm chart without a cluster. It lints and
// renders the chart with Helm's own code, decodes every manifest into the types
// of the Kubernetes API, refusing fields that they do not have, and holds the
// manifests to rules: what refers to something refers to what is there, nothing
// runs as root, a pod may take longer to stop than stopping takes.
//
// It also follows the pages about deployment to the letter, as far as that goes
// without a cluster and without changing the machine, and tries the files in
// deploy/.
//
// It is a module of its own, so that the gateway's does not depend on Helm and
// Kubernetes. "make chart" runs its tests.
package chartcheck

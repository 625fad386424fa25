package check

import (
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/policy"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/yaml"
)

const namespace = "iad-lab"

type manifests struct {
	namespaces []corev1.Namespace
	secrets    []corev1.Secret
	services   []corev1.Service
	workloads  []workload
	budgets    []policyv1.PodDisruptionBudget
	policies   []networkingv1.NetworkPolicy
}

// workload is a StatefulSet or a Deployment.
type workload struct {
	name     string
	selector *metav1.LabelSelector
	pod      corev1.PodTemplateSpec
	replicas int
	// set is nil for a Deployment.
	set *appsv1.StatefulSetSpec
}

// read renders the manifests as "kubectl apply -k" does, and decodes them with the types of the API; a field that these do not
// have is an error.
func read(t *testing.T) *manifests {
	t.Helper()
	rendered, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), "..")
	if err != nil {
		t.Fatal(err)
	}
	var m manifests
	for _, resource := range rendered.Resources() {
		text, err := resource.AsYAML()
		if err != nil {
			t.Fatal(err)
		}
		kind := resource.GetApiVersion() + " " + resource.GetKind()
		switch kind {
		case "v1 Namespace":
			m.namespaces = add(t, m.namespaces, text)
		case "v1 Secret":
			m.secrets = add(t, m.secrets, text)
		case "v1 Service":
			m.services = add(t, m.services, text)
		case "apps/v1 StatefulSet":
			for _, set := range add[appsv1.StatefulSet](t, nil, text) {
				m.workloads = append(m.workloads, workload{set.Name, set.Spec.Selector, set.Spec.Template, int(*set.Spec.Replicas), &set.Spec})
			}
		case "apps/v1 Deployment":
			for _, d := range add[appsv1.Deployment](t, nil, text) {
				m.workloads = append(m.workloads, workload{d.Name, d.Spec.Selector, d.Spec.Template, int(*d.Spec.Replicas), nil})
			}
		case "policy/v1 PodDisruptionBudget":
			m.budgets = add(t, m.budgets, text)
		case "networking.k8s.io/v1 NetworkPolicy":
			m.policies = add(t, m.policies, text)
		default:
			t.Errorf("%s: a kind that this test does not know", kind)
		}
		if kind != "v1 Namespace" && resource.GetNamespace() != namespace {
			t.Errorf("%s %s is in namespace %q", kind, resource.GetName(), resource.GetNamespace())
		}
	}
	if len(m.workloads) == 0 || len(m.services) == 0 || len(m.budgets) == 0 || len(m.policies) == 0 || len(m.secrets) == 0 {
		t.Fatalf("too few objects: %+v", m)
	}
	return &m
}

func add[T any](t *testing.T, list []T, text []byte) []T {
	t.Helper()
	var object T
	if err := yaml.UnmarshalStrict(text, &object); err != nil {
		t.Errorf("%v\n%s", err, text)
	}
	return append(list, object)
}

// pods returns the workloads whose pods a selector selects.
func (m *manifests) pods(t *testing.T, selector *metav1.LabelSelector) (found []workload) {
	t.Helper()
	s, err := metav1.LabelSelectorAsSelector(selector)
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range m.workloads {
		if !s.Empty() && s.Matches(labels.Set(w.pod.Labels)) {
			found = append(found, w)
		}
	}
	return found
}

// hasPort reports whether a container has a port with this name or number, and with this protocol.
func (w *workload) hasPort(port intstr.IntOrString, protocol corev1.Protocol) bool {
	return slices.ContainsFunc(w.pod.Spec.Containers, func(c corev1.Container) bool {
		return slices.ContainsFunc(c.Ports, func(p corev1.ContainerPort) bool {
			return p.Protocol == protocol && (p.Name == port.String() || strconv.Itoa(int(p.ContainerPort)) == port.String())
		})
	})
}

func TestSelectorsAndPorts(t *testing.T) {
	m := read(t)
	for _, service := range m.services {
		found := m.pods(t, metav1.SetAsLabelSelector(service.Spec.Selector))
		if len(found) != 1 {
			t.Errorf("service %s selects %d workloads, want 1", service.Name, len(found))
			continue
		}
		for _, port := range service.Spec.Ports {
			if !found[0].hasPort(port.TargetPort, port.Protocol) || !found[0].hasPort(intstr.FromInt32(port.Port), port.Protocol) {
				t.Errorf("service %s: no container has port %s", service.Name, port.TargetPort.String())
			}
		}
	}
	for _, w := range m.workloads {
		own := []*metav1.LabelSelector{w.selector}
		for _, spread := range w.pod.Spec.TopologySpreadConstraints {
			own = append(own, spread.LabelSelector)
		}
		for _, selector := range own {
			if found := m.pods(t, selector); len(found) != 1 || found[0].name != w.name {
				t.Errorf("%s: %v does not select exactly its own pods", w.name, selector)
			}
		}
		if w.set != nil && !slices.ContainsFunc(m.services, func(s corev1.Service) bool { return s.Name == w.set.ServiceName && s.Spec.ClusterIP == "None" }) {
			t.Errorf("set %s: no headless service %q", w.name, w.set.ServiceName)
		}
		if w.replicas > 1 && !slices.ContainsFunc(m.budgets, func(b policyv1.PodDisruptionBudget) bool {
			found := m.pods(t, b.Spec.Selector)
			return len(found) == 1 && found[0].name == w.name
		}) {
			t.Errorf("no disruption budget for the pods of %s", w.name)
		}
		for _, c := range w.pod.Spec.Containers {
			for _, probe := range []*corev1.Probe{c.LivenessProbe, c.ReadinessProbe, c.StartupProbe} {
				if probe != nil && probe.HTTPGet != nil && !w.hasPort(probe.HTTPGet.Port, corev1.ProtocolTCP) {
					t.Errorf("%s: no container has port %s of a probe", w.name, probe.HTTPGet.Port.String())
				}
			}
		}
	}
	for _, budget := range m.budgets {
		if len(m.pods(t, budget.Spec.Selector)) != 1 {
			t.Errorf("disruption budget %s selects no workload, or several", budget.Name)
		}
	}
	limited := map[string]bool{}
	for _, p := range m.policies {
		subjects := m.pods(t, &p.Spec.PodSelector)
		for _, w := range subjects {
			limited[w.name] = true
		}
		for _, rule := range p.Spec.Ingress {
			m.peers(t, p.Name, rule.From)
			open(t, p.Name, subjects, rule.Ports)
		}
		for _, rule := range p.Spec.Egress {
			open(t, p.Name, m.peers(t, p.Name, rule.To), rule.Ports)
		}
	}
	for _, w := range m.workloads {
		if !limited[w.name] {
			t.Errorf("no network policy for the pods of %s", w.name)
		}
	}
}

// peers returns the workloads that a rule of a policy names.
func (m *manifests) peers(t *testing.T, policy string, peers []networkingv1.NetworkPolicyPeer) (found []workload) {
	t.Helper()
	for _, peer := range peers {
		if peer.PodSelector == nil {
			continue
		}
		selected := m.pods(t, peer.PodSelector)
		found = append(found, selected...)
		names := 1
		for _, e := range peer.PodSelector.MatchExpressions {
			names = len(e.Values)
		}
		if len(selected) != names {
			t.Errorf("network policy %s names pods that do not exist: %v", policy, peer.PodSelector)
		}
	}
	return found
}

// open fails the test for a port of a rule that one of the pods does not have.
func open(t *testing.T, policy string, pods []workload, ports []networkingv1.NetworkPolicyPort) {
	t.Helper()
	for _, port := range ports {
		for _, w := range pods {
			if !w.hasPort(*port.Port, *port.Protocol) {
				t.Errorf("network policy %s: %s has no port %s", policy, w.name, port.Port.String())
			}
		}
	}
}

// TestPolicyConnections: what has to be connected may be, at both ends.
func TestPolicyConnections(t *testing.T) {
	m := read(t)
	allowed := map[string]bool{}
	for _, p := range m.policies {
		for _, w := range m.pods(t, &p.Spec.PodSelector) {
			for _, rule := range p.Spec.Ingress {
				for _, from := range m.peers(t, p.Name, rule.From) {
					allowed["in "+from.name+" "+w.name+" "+portNames(rule.Ports)] = true
				}
			}
			for _, rule := range p.Spec.Egress {
				for _, to := range m.peers(t, p.Name, rule.To) {
					allowed["out "+w.name+" "+to.name+" "+portNames(rule.Ports)] = true
				}
			}
		}
	}
	for _, connection := range []string{
		"iadms device ", "device iadms ", "iadmsd-worker device ", "device iadmsd-worker ",
		"iadmsd iadmsd nodes", "iadmsd-worker iadmsd workers", "iadms iadmsd web",
	} {
		for _, end := range []string{"in ", "out "} {
			if !allowed[end+connection] {
				t.Errorf("not allowed: %s%s", end, connection)
			}
			delete(allowed, end+connection)
		}
	}
	for more := range allowed {
		t.Errorf("allowed without need: %s", more)
	}
}

func portNames(ports []networkingv1.NetworkPolicyPort) (names string) {
	for _, p := range ports {
		names += p.Port.String()
	}
	return names
}

// created returns the keys of a Secret or ConfigMap that the comment of kustomization.yaml creates.
func created(t *testing.T, kind, name string) (keys []string) {
	t.Helper()
	text, err := os.ReadFile("../kustomization.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		_, files, ok := strings.Cut(line, " create "+kind+" "+name+" ")
		for _, word := range strings.Fields(files) {
			if key, is := strings.CutPrefix(word, "--from-file="); ok && is {
				keys = append(keys, key)
			}
		}
	}
	return keys
}

func TestReferences(t *testing.T) {
	m := read(t)
	for _, w := range m.workloads {
		volumes := map[string][]string{} // with the files that are known
		for _, v := range w.pod.Spec.Volumes {
			volumes[v.Name] = []string{}
			switch {
			case v.Secret != nil:
				volumes[v.Name] = created(t, "secret generic", v.Secret.SecretName)
			case v.ConfigMap != nil:
				volumes[v.Name] = created(t, "configmap", v.ConfigMap.Name)
			default:
				continue
			}
			if len(volumes[v.Name]) == 0 {
				t.Errorf("%s: kustomization.yaml does not say how to create volume %s", w.name, v.Name)
			}
		}
		if w.set != nil {
			for _, claim := range w.set.VolumeClaimTemplates {
				volumes[claim.Name] = []string{}
			}
		}
		for _, c := range w.pod.Spec.Containers {
			if !strings.ContainsRune(c.Image, '/') || !strings.ContainsRune(c.Image, ':') {
				t.Errorf("%s: image %s has no registry or no tag from kustomization.yaml", c.Name, c.Image)
			}
			for _, mount := range c.VolumeMounts {
				files, ok := volumes[mount.Name]
				if !ok {
					t.Errorf("%s: no volume %s", c.Name, mount.Name)
				}
				for _, arg := range c.Args {
					_, file, found := strings.Cut(arg, "="+mount.MountPath+"/")
					if found && len(files) > 0 && !slices.Contains(files, file) {
						t.Errorf("%s: %s: volume %s has only %v", c.Name, arg, mount.Name, files)
					}
				}
			}
			for _, variable := range c.Env {
				if variable.ValueFrom == nil || variable.ValueFrom.SecretKeyRef == nil {
					continue
				}
				ref := variable.ValueFrom.SecretKeyRef
				if !slices.ContainsFunc(m.secrets, func(s corev1.Secret) bool { return s.Name == ref.Name && s.StringData[ref.Key] != "" }) {
					t.Errorf("%s: no key %s in secret %s", c.Name, ref.Key, ref.Name)
				}
			}
			if len(c.Resources.Requests) == 0 || c.Resources.Limits.Memory().IsZero() {
				t.Errorf("%s: resources %+v", c.Name, c.Resources)
			}
		}
	}
}

// TestPodSecurity evaluates the pods by the code of the admission controller, at the level that the namespace enforces.
func TestPodSecurity(t *testing.T) {
	m := read(t)
	level := api.Level(m.namespaces[0].Labels[api.EnforceLevelLabel])
	if level != api.LevelRestricted {
		t.Fatalf("the namespace enforces %q", level)
	}
	evaluator, err := policy.NewEvaluator(policy.DefaultChecks())
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range m.workloads {
		pod := w.pod
		for _, result := range evaluator.EvaluatePod(api.LevelVersion{Level: level, Version: api.LatestVersion()}, &pod.ObjectMeta, &pod.Spec) {
			if !result.Allowed {
				t.Errorf("%s: %s: %s", w.name, result.ForbiddenReason, result.ForbiddenDetail)
			}
		}
	}
}

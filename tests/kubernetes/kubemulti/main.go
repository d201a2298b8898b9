// kubemulti is all of Kubernetes' own commands in one binary; the name that it is called by chooses.
//
// One binary instead of seven, because they share most of their code: the images of the control plane share one layer,
// the bundle is half as large, and a node maps the text once. Each branch below is the main() of the command of that
// name in Kubernetes 1.20 (cmd/NAME), unchanged but for what is said there.
package main

import (
	"flag"
	"fmt"
	"math/rand"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	_ "k8s.io/client-go/plugin/pkg/client/auth" // kubectl: client auth plugins
	cliflag "k8s.io/component-base/cli/flag"
	"k8s.io/component-base/logs"
	_ "k8s.io/component-base/metrics/prometheus/clientgo"
	_ "k8s.io/component-base/metrics/prometheus/restclient"
	_ "k8s.io/component-base/metrics/prometheus/version"
	kubectl "k8s.io/kubectl/pkg/cmd"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	controllermanager "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	proxy "k8s.io/kubernetes/cmd/kube-proxy/app"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
	kubeadm "k8s.io/kubernetes/cmd/kubeadm/app"
	kubeadmutil "k8s.io/kubernetes/cmd/kubeadm/app/util"
	kubelet "k8s.io/kubernetes/cmd/kubelet/app"
)

var commands = map[string]func(){
	"kube-apiserver":          func() { run(apiserver.NewAPIServerCommand()) },
	"kube-controller-manager": func() { run(controllermanager.NewControllerManagerCommand()) },
	"kubelet":                 func() { run(kubelet.NewKubeletCommand()) },
	"kube-scheduler": func() {
		command := scheduler.NewSchedulerCommand()
		pflag.CommandLine.SetNormalizeFunc(cliflag.WordSepNormalizeFunc)
		run(command)
	},
	"kube-proxy": func() {
		command := proxy.NewProxyCommand()
		pflag.CommandLine.SetNormalizeFunc(cliflag.WordSepNormalizeFunc)
		pflag.CommandLine.AddGoFlagSet(flag.CommandLine)
		run(command)
	},
	"kubectl": func() {
		// kubectl's own log package cannot be linked in: its init() and component-base's register the same flags.
		// This line is the one thing that it does besides.
		flag.Set("logtostderr", "true")
		command := kubectl.NewDefaultKubectlCommand()
		pflag.CommandLine.SetNormalizeFunc(cliflag.WordSepNormalizeFunc)
		pflag.CommandLine.AddGoFlagSet(flag.CommandLine)
		run(command)
	},
	"kubeadm": func() {
		// kubeadm registers klog's flags itself, and component-base's init() has done so already:
		// without a new set it panics with "flag redefined: log_dir".
		flag.CommandLine = flag.NewFlagSet(os.Args[0], flag.ExitOnError)
		kubeadmutil.CheckErr(kubeadm.Run())
	},
}

func run(command *cobra.Command) {
	logs.InitLogs()
	if err := command.Execute(); err != nil {
		logs.FlushLogs()
		os.Exit(1)
	}
	logs.FlushLogs()
}

func main() {
	rand.Seed(time.Now().UnixNano())
	name := filepath.Base(os.Args[0])
	command, found := commands[name]
	if !found {
		fmt.Fprintf(os.Stderr, "kubemulti: called as %q; call it as one of:\n", name)
		for known := range commands {
			fmt.Fprintln(os.Stderr, "  "+known)
		}
		os.Exit(2)
	}
	command()
}

// Reads custom resources as a list of JSON from standard input and holds each to the published model of its kind.
// Prints one sentence for each that is wrong.
import { readFileSync } from "node:fs";

const MODELS = {
  ScaledObject: "@kubernetes-models/keda/keda.sh/v1alpha1/ScaledObject",
  TriggerAuthentication: "@kubernetes-models/keda/keda.sh/v1alpha1/TriggerAuthentication",
  ServiceMonitor: "@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1/ServiceMonitor",
  PrometheusRule: "@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1/PrometheusRule",
};

for (const object of JSON.parse(readFileSync(0, "utf8"))) {
  const { [object.kind]: Model } = await import(MODELS[object.kind]);
  const made = new Model(object);
  if (made.apiVersion !== object.apiVersion) {
    console.log(`${object.kind} ${object.metadata.name}: ${object.apiVersion} is not ${new Model({}).apiVersion}`);
  }
  try {
    made.validate();
  } catch (error) {
    console.log(`${object.kind} ${object.metadata.name}: ${error.message}`);
  }
}

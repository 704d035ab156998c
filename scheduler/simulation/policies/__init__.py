"""The policies to compare: published ones, what stock kube-scheduler does, and ours."""

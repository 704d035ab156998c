"""The device plugin contract with kubelet; generated code only."""

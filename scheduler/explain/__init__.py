"""Why a pod is where it is: what decisions found out, kept for a while and told over HTTP.

`names`, `record`, `digest`, `store` and `views` are pure: values in, values out, time given.
"""

-- Reads one deployment, chosen at random by its id.
local common = require("common")

request = function()
    return wrk.format("GET", "/v1/deployments/" .. common.deployment_id(math.random(common.deployments)))
end

setup, init, done = common.setup, common.init, common.done

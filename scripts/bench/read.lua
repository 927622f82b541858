-- GET one deployment by its id, chosen at random.
local common = require("common")

request = function()
    return wrk.format("GET", "/v1/deployments/" .. common.deployment_id(math.random(common.deployments)))
end

init, done = common.init, common.done
